"""An epoch of masked-language-model pretraining in Keras: Thaw against a plain `keras.fit`.

    python -m benchmarks.keras_bert_speed --data-dir DIR

All sides train a BERT of 6 layers, hidden size 384 and 12 heads on the tweets of covid_fake_news.
They share the vocabulary, at most 128 tokens, batches of 32 texts, dropout 0.1, and AdamW with
clipped gradients. 15 % of the tokens are predicted; logits are computed for these tokens only. Each
side is a process of its own, and only these import TensorFlow. The first epoch is a warm-up.

- Thaw trains as `python -m keras_bert pretrain --precision mixed_bfloat16` does, data pipeline
  included.
- The default baseline has Keras's own layers, float32, texts padded to the maximum and the defaults
  of `compile`. Its masks are drawn beforehand. All steps cost the same, so a few of them are
  measured and extrapolated to an epoch.
- The tuned baseline has mixed_bfloat16 and several steps per execution. It does not use XLA, which
  is slower on a CPU. After the measurement it trains a whole epoch from the start, for its loss.
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

_LAYERS, _HIDDEN, _HEADS, _MAXLEN = 6, 384, 12, 128
_BATCH, _VOCABULARY, _RATE, _DROP = 32, 8000, 0.15, 0.1  # _RATE: share of the tokens predicted
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # the first tokens of the vocabulary
_MASKED, _RANDOM = 0.8, 0.1  # shares of the predicted tokens; the remaining ones are kept
_TABLE = Path("covid_fake_news") / "train.csv"
_STEPS = 8  # measured steps of a baseline per repetition
_BASELINES = {"default": "float32", "tuned": "mixed_bfloat16"}


def measure(given: argparse.Namespace) -> list[Row]:
    """Measure Thaw first, as the baselines use its vocabulary."""
    table = given.data_dir / _TABLE
    if not table.is_file():
        sys.exit(f"error: {table} does not exist: give --data-dir the folder that holds {_TABLE}")
    options = ["--data-dir", str(given.data_dir), "--repetitions", str(given.repetitions)]
    with tempfile.TemporaryDirectory() as folder:
        found = {"Thaw": train_thaw(given, folder)}
        for name in _BASELINES:
            argv = ["benchmarks.keras_bert_speed", "--baseline", name, "--folder", folder, *options]
            found[name] = json.loads(_output(argv, given).splitlines()[-1])
        tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        tweets = pd.read_csv(table)["tweet"].tolist()
        tokens = sum(
            min(len(one.ids), _MAXLEN - 2) + 2
            for one in tokenizer.encode_batch(tweets, add_special_tokens=False)
        )
    steps, texts = found["Thaw"]["steps"], found["Thaw"]["texts"]
    sides = {}
    for name, one in found.items():
        quality = f"train loss {one['loss']:.3f}, mean of the first epoch" if "loss" in one else ""
        sides[name] = Side(
            tuple(one["seconds"]), share=min(1.0, one["steps"] / steps), quality=quality
        )
    work = (
        f"a masked-LM epoch of {texts:,} tweets in Keras, BERT of {_LAYERS} layers, "
        f"hidden size {_HIDDEN}"
    )
    # The backward pass costs twice the forward pass. Each token passes the blocks' matrices, each
    # predicted token the head's.
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


def _output(argv: list[str], given: argparse.Namespace) -> str:
    """Run a module in a process with the given number of threads; return what it prints."""
    threads = {f"TF_NUM_{kind}OP_THREADS": str(given.threads) for kind in ("INTRA", "INTER")}
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", *argv],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **threads, "CUDA_VISIBLE_DEVICES": ""},
    ).stdout


def train_thaw(given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Pretrain with Thaw and return what its run folder recorded.

    Args:
        given: Command-line arguments of the benchmark.
        folder: The run folder to write.

    Returns:
        `seconds` of each epoch after the first, `steps` and `texts` of an epoch, and `loss`, the
        mean train loss of the first epoch.
    """
    options = {
        "text": given.data_dir / _TABLE,
        "text-column": "tweet",
        "out": folder,
        "epochs": given.repetitions + 1,
        "precision": "mixed_bfloat16",
        "vocab-size": _VOCABULARY,
        "maxlen": _MAXLEN,
        "batch-size": _BATCH,
        "mask-rate": _RATE,
        "drop-rate": _DROP,
        "num-layers": _LAYERS,
        "num-att-heads": _HEADS,
        "hidden-size": _HIDDEN,
        "intermediate-size": 4 * _HIDDEN,
    }
    _output(
        [
            "keras_bert",
            "pretrain",
            *(str(part) for name, value in options.items() for part in (f"--{name}", value)),
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
    """Return the first tweets, masked once with Thaw's vocabulary.

    Args:
        table: CSV file of the tweets.
        folder: Thaw's run folder.
        count: N, the number of tweets.

    Returns:
        `input_ids` [N, T] and the predicted `positions` [N, P]; the original token ids at these
        positions [N, P]; and weights [N, P], 1 for a predicted position and 0 for padding.
    """
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab()
    start, end, mask = (vocabulary[token] for token in ("[CLS]", "[SEP]", "[MASK]"))
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
        drawn = rng.integers(len(_SPECIAL), len(vocabulary), n)
        ids[i, chosen] = np.where(
            fate < _MASKED, mask, np.where(fate < _MASKED + _RANDOM, drawn, ids[i, chosen])
        )
    return {"input_ids": ids, "positions": positions}, hidden, weights


def plain_model(vocabulary: int) -> Any:  # noqa: ANN401 - a keras.Model
    """Return the same architecture, built of Keras's own layers."""
    import keras
    from keras import layers, ops

    def normed(states: Any) -> Any:  # noqa: ANN401
        return layers.LayerNormalization(epsilon=1e-12)(states)

    ids = keras.Input((_MAXLEN,), dtype="int32", name="input_ids")
    positions = keras.Input((None,), dtype="int32", name="positions")
    states = layers.Embedding(vocabulary, _HIDDEN)(ids)
    position_embeddings = layers.Embedding(_MAXLEN, _HIDDEN)(ops.arange(_MAXLEN)[None])
    states = layers.Dropout(_DROP)(normed(states + position_embeddings))
    mask = ops.not_equal(ids, 0)[:, None, :]
    for _ in range(_LAYERS):
        attended = layers.MultiHeadAttention(_HEADS, _HIDDEN // _HEADS)(
            states, states, attention_mask=mask
        )
        states = normed(states + layers.Dropout(_DROP)(attended))
        inner = layers.Dense(_HIDDEN)(layers.Dense(4 * _HIDDEN, "gelu")(states))
        states = normed(states + layers.Dropout(_DROP)(inner))
    chosen = ops.take_along_axis(states, positions[:, :, None], axis=1)
    logits = layers.Dense(vocabulary, dtype="float32")(
        normed(layers.Dense(_HIDDEN, "gelu")(chosen))
    )
    return keras.Model({"input_ids": ids, "positions": positions}, logits)


def train_baseline(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train a baseline with `compile` and `fit`, `_STEPS` steps an epoch.

    The first epoch is a warm-up. The tuned baseline then trains on all texts once, for its loss.

    Returns:
        `seconds` of each epoch after the first, `steps` of an epoch, and `loss` of the tuned
        baseline.
    """
    import keras

    keras.config.set_dtype_policy(_BASELINES[name])
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
        inputs,
        hidden,
        sample_weight=weights,
        batch_size=_BATCH,
        epochs=given.repetitions + 1,
        steps_per_epoch=_STEPS,
        callbacks=[clock],
        verbose=0,
    )
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
    """Measure all sides, or one baseline in its own process (`--baseline`)."""
    parser = arguments(__doc__, repetitions=3, on_gpus=False)
    parser.add_argument("--baseline", choices=tuple(_BASELINES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.baseline:
        print(json.dumps(train_baseline(given.baseline, given)))
    else:
        command(parser, measure)


if __name__ == "__main__":
    main()
