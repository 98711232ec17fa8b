"""An epoch of masked-language-model pretraining in Keras: Thaw against a plain `keras.fit`.

    python -m benchmarks.keras_bert_speed --data-dir DIR

A BERT of 6 layers, hidden size 384 and 12 heads, at most 128 tokens, the tweets of covid_fake_news,
one vocabulary, batches of 32 texts, 15 % of the tokens guessed, of which alone the vocabulary is
scored, dropout 0.1, AdamW with clipped gradients. Each side is a process of its own, the only ones
with TensorFlow; its first epoch is for warmth. Thaw is measured as `python -m keras_bert pretrain
--precision mixed_bfloat16` trains, data pipeline included. The plain side is made of Keras's own
layers, in float32 and padded to the maximum, with `compile` as it is; its masks are drawn
beforehand, and as each of its steps costs the same, an epoch of it is a few steps. The tuned side
has mixed_bfloat16, several steps an execution, and no XLA, which is slower on a CPU; when it has
been measured, it trains once more, from the beginning and for a whole epoch, for its loss.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer

from benchmarks.machine import operations_per_second
from benchmarks.measuring import setting
from benchmarks.rows import Limit, Row, Side, arguments, command, ratio_goals

_LAYERS, _HIDDEN, _HEADS, _MAXLEN, _BATCH, _RATE, _DROP, _VOCABULARY = (
    6,
    384,
    12,
    128,
    32,
    0.15,
    0.1,
    8000,
)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # the first of the vocabulary
_MASKED, _RANDOM = 0.8, 0.1
_TABLE = Path("covid_fake_news") / "train.csv"
_STEPS = 8  # of the peers, an epoch
_PEERS = {"default": "float32", "tuned": "mixed_bfloat16"}


def measure(given: argparse.Namespace) -> list[Row]:
    """Thaw first: the peers take its vocabulary."""
    if not (given.data_dir / _TABLE).is_file():
        sys.exit(
            f"error: {given.data_dir / _TABLE} does not exist: give --data-dir the folder that holds it"
        )
    options = ["--data-dir", str(given.data_dir), "--repetitions", str(given.repetitions)]
    with tempfile.TemporaryDirectory() as folder:
        found = {"Thaw": train_thaw(given, folder)}
        for name in _PEERS:
            words = ["benchmarks.keras_bert_speed", "--peer", name, "--folder", folder, *options]
            found[name] = json.loads(_output(words, given).splitlines()[-1])
        numbers = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        tweets = pd.read_csv(given.data_dir / _TABLE)["tweet"].tolist()
        tokens = sum(
            min(len(one.ids), _MAXLEN - 2) + 2
            for one in numbers.encode_batch(tweets, add_special_tokens=False)
        )
    steps, texts = found["Thaw"]["steps"], found["Thaw"]["texts"]
    sides = {}
    for name, one in found.items():
        quality = f"train loss {one['loss']:.3f}, mean of the first epoch" if "loss" in one else ""
        sides[name] = Side(
            tuple(one["seconds"]), share=min(1.0, one["steps"] / steps), quality=quality
        )
    work = f"a masked-LM epoch of {texts:,} tweets in Keras, BERT of {_LAYERS} layers, hidden size {_HIDDEN}"
    # Forward and twice that backward: a block's matrices for each token, the head's for each that
    # is guessed.
    operations = (
        3 * 2 * tokens * (12 * _LAYERS * _HIDDEN**2 + _RATE * (_HIDDEN**2 + _HIDDEN * _VOCABULARY))
    )
    rate = operations_per_second(torch.bfloat16)
    limit = Limit(
        operations / rate,
        f"{operations / 1e12:.1f} TFLOP of real tokens at {rate / 1e9:,.0f} GFLOP/s in bfloat16",
    )
    goals = ratio_goals(sides, ("default", 3, 5))
    return [Row("S9", work, sides, goals, setting("tensorflow", "keras"), limit)]


def _output(words: list[str], given: argparse.Namespace) -> str:
    """What a process of its own prints, with as many threads as were asked for."""
    threads = {f"TF_NUM_{kind}OP_THREADS": str(given.threads) for kind in ("INTRA", "INTER")}
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **threads, "CUDA_VISIBLE_DEVICES": ""},
    ).stdout


def train_thaw(given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Pretrain, and read what history.csv says of every epoch but the first."""
    words = {
        "text": given.data_dir / _TABLE, "text-column": "tweet", "out": folder, "epochs": given.repetitions + 1,
        "precision": "mixed_bfloat16", "vocab-size": _VOCABULARY, "maxlen": _MAXLEN, "batch-size": _BATCH, "mask-rate": _RATE,
        "drop-rate": _DROP, "num-layers": _LAYERS, "num-att-heads": _HEADS, "hidden-size": _HIDDEN,
        "intermediate-size": 4 * _HIDDEN,
    }  # fmt: skip
    _output(
        [
            "keras_bert",
            "pretrain",
            *(str(word) for name, value in words.items() for word in (f"--{name}", value)),
        ],
        given,
    )
    with (Path(folder) / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    plan = json.loads((Path(folder) / "plan.json").read_text(encoding="utf-8"))
    return {
        "seconds": [float(row["train/seconds"]) for row in rows[1:]],
        "steps": plan["batches_per_epoch"],
        "texts": plan["samples"]["train"],
        "loss": float(rows[0]["train/loss"]),
    }


def plain_data(
    table: Path, folder: str, count: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The first tweets, masked once with Thaw's vocabulary.

    Args:
        table: Where they stand.
        folder: Thaw's run folder.
        count: N.

    Returns:
        The tokens [N, T] and the chosen positions [N, P]; what stood there [N, P]; and 1 for what
        was chosen, 0 behind it.
    """
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    numbers = tokenizer.get_vocab()
    start, end, mask = (numbers[token] for token in ("[CLS]", "[SEP]", "[MASK]"))
    tweets = pd.read_csv(table)["tweet"][:count].tolist()
    texts = [encoded.ids for encoded in tokenizer.encode_batch(tweets, add_special_tokens=False)]
    rng, most = np.random.default_rng(0), math.ceil(_RATE * _MAXLEN)
    ids = np.zeros((count, _MAXLEN), np.int32)
    positions, hidden = (np.zeros((count, most), np.int32) for _ in range(2))
    weights = np.zeros((count, most), np.float32)
    for i, text in enumerate(texts):
        size = min(len(text), _MAXLEN - 2)
        ids[i, : size + 2] = [start, *text[:size], end]
        chosen = 1 + rng.permutation(size)[: max(1, round(_RATE * size))]
        n, fate = len(chosen), rng.random(len(chosen))
        positions[i, :n], hidden[i, :n], weights[i, :n] = chosen, ids[i, chosen], 1
        drawn = rng.integers(len(_SPECIAL), len(numbers), n)
        ids[i, chosen] = np.where(
            fate < _MASKED, mask, np.where(fate < _MASKED + _RANDOM, drawn, ids[i, chosen])
        )
    return {"input_ids": ids, "positions": positions}, hidden, weights


def plain_model(vocabulary: int) -> Any:  # noqa: ANN401 - a keras.Model
    """The same architecture of Keras's own layers."""
    import keras
    from keras import layers, ops

    def normed(states: Any) -> Any:  # noqa: ANN401
        return layers.LayerNormalization(epsilon=1e-12)(states)

    ids = keras.Input((_MAXLEN,), dtype="int32", name="input_ids")
    positions = keras.Input((None,), dtype="int32", name="positions")
    states = layers.Embedding(vocabulary, _HIDDEN)(ids)
    places = layers.Embedding(_MAXLEN, _HIDDEN)(ops.arange(_MAXLEN)[None])
    states = layers.Dropout(_DROP)(normed(states + places))
    mask = ops.not_equal(ids, 0)[:, None, :]
    for _ in range(_LAYERS):
        read = layers.MultiHeadAttention(_HEADS, _HIDDEN // _HEADS)(
            states, states, attention_mask=mask
        )
        states = normed(states + layers.Dropout(_DROP)(read))
        inner = layers.Dense(_HIDDEN)(layers.Dense(4 * _HIDDEN, "gelu")(states))
        states = normed(states + layers.Dropout(_DROP)(inner))
    chosen = ops.take_along_axis(states, positions[:, :, None], axis=1)
    logits = layers.Dense(vocabulary, dtype="float32")(
        normed(layers.Dense(_HIDDEN, "gelu")(chosen))
    )
    return keras.Model({"input_ids": ids, "positions": positions}, logits)


def train_peer(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """`compile` and `fit`, some steps an epoch, the first for warmth; the tuned one then through all texts, for the loss."""
    import keras

    keras.config.set_dtype_policy(_PEERS[name])
    table = given.data_dir / _TABLE

    def compiled() -> Any:  # noqa: ANN401 - a keras.Model
        keras.utils.set_random_seed(1)
        model = plain_model(_VOCABULARY)
        own = {"steps_per_execution": _STEPS, "jit_compile": False} if name == "tuned" else {}
        model.compile(
            keras.optimizers.AdamW(5e-4, weight_decay=0.01, global_clipnorm=1.0),
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            ),
            **own,
        )
        return model

    inputs, hidden, weights = plain_data(
        table, given.folder, _STEPS * _BATCH * (given.repetitions + 1)
    )
    stamps: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: stamps.append(time.perf_counter()),  # noqa: ARG005 - Keras's signature
        on_epoch_end=lambda epoch, logs: stamps.append(time.perf_counter()),  # noqa: ARG005
    )
    compiled().fit(
        inputs, hidden, sample_weight=weights, batch_size=_BATCH, epochs=given.repetitions + 1, steps_per_epoch=_STEPS,
        callbacks=[clock], verbose=0,
    )  # fmt: skip
    seconds = [end - begin for begin, end in zip(stamps[2::2], stamps[3::2], strict=True)]
    found = {"seconds": seconds, "steps": _STEPS}
    if name == "tuned":
        inputs, hidden, weights = plain_data(table, given.folder, len(pd.read_csv(table)))
        fitted = compiled().fit(
            inputs, hidden, sample_weight=weights, batch_size=_BATCH, epochs=1, verbose=0
        )
        found["loss"] = fitted.history["loss"][0]
    return found


def main() -> None:
    """Measure all sides, or be the process of a peer."""
    parser = arguments(__doc__, repetitions=3, on_gpus=False)
    parser.add_argument("--peer", choices=tuple(_PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        print(json.dumps(train_peer(given.peer, given)))
    else:
        command(parser, measure)


if __name__ == "__main__":
    main()
