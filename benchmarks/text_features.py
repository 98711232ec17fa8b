"""Ten epochs of a head on a frozen BERT, tested once: Thaw, which runs the encoder once, against the Trainer of Hugging Face.

    python -m benchmarks.text_features --data-dir DIR --backbone FOLDER

The same weights, tweets, batches of 32, at most 128 tokens, AdamW with one learning rate, clipped
gradients; a linear head on the mean of the token states, and a bidirectional GRU of 128 units on
all of them. All sides read the train and the val split: Thaw, which starts without stored features,
evaluates val every epoch, the Trainer once at the end. A second Thaw reads the test split besides,
as `train.py` does unless told otherwise. The Trainer by default is float32 in random order, tuned
bfloat16 and grouped by length. Each repetition has its own seed. Of the peers, whose epochs are all
alike, the tuned one trains once, and the default one trains one epoch, which counts ten times, and
evaluates.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.machine import operations_per_second
from benchmarks.measuring import setting
from benchmarks.rows import Limit, Row, arguments, command, ratio_goals
from benchmarks.text_runs import ThawRun, add_backbone, forward_operations
from benchmarks.trainer_runs import PeerRun
from benchmarks.turns import Run, side_by_side, side_of

_EPOCHS, _LR, _STEPS_OF_WARMTH = 10, 1e-3, 10
_ALL = "Thaw with the test split"
# Head -> experiment, and what is to be reached against each peer.
_HEADS = {
    "linear": ("minilm_feature", (("default", 30, 50), ("tuned", 8, 11))),
    "bigru": ("minilm_bigru_feature", (("default", 10, 25), ("tuned", 3, 6))),
}


def measure(given: argparse.Namespace) -> Iterator[Row]:
    """Measure both heads."""
    rate = operations_per_second(torch.bfloat16, given.device)
    return (_row(head, given, rate) for head in given.head or _HEADS)


def _row(head: str, given: argparse.Namespace, rate: float) -> Row:
    experiment, wanted = _HEADS[head]
    words = {
        "model.lr": _LR,
        "data.batch_size": 32,
        "data.max_length": 128,
        "trainer.max_epochs": _EPOCHS,
    }
    peer = partial(PeerRun, given, _LR, epochs=_EPOCHS, head=head)  # type: ignore[arg-type]
    ours = partial(ThawRun, experiment, given, words, features="measured")
    makes: dict[str, Callable[[], Run]] = {
        "Thaw": ours,
        "default": partial(peer, measured=1, tuned=False),
        "tuned": partial(peer, tuned=True),
        _ALL: partial(ours, split="test"),
    }
    seeds = {"Thaw": given.repetitions, "default": 1, "tuned": 1, _ALL: given.repetitions}
    found = side_by_side(makes, given, seeds, warmth=_STEPS_OF_WARMTH)
    told = {"default": "val acc after one epoch", _ALL: "test acc"}
    sides = {name: side_of(trained, told.get(name, "val acc")) for name, trained in found.items()}
    thaw = ThawRun(experiment, given, words)
    thaw.prepare(1)
    operations = sum(forward_operations(thaw, split) for split in ("train", "val"))
    limit = Limit(
        operations / rate,
        f"one forward pass, {operations / 1e12:.2f} TFLOP at {rate / 1e9:,.0f} GFLOP/s",
    )
    what = f"{_EPOCHS} epochs of a {head} head on frozen {thaw.backbone_name}, {thaw.train_rows:,} tweets, tested once on val"
    versions = setting("torch", "lightning", "transformers", "accelerate")
    return Row(
        f"S2 {head}", what, sides, ratio_goals(sides, *wanted), versions, limit, given.device
    )


if __name__ == "__main__":
    parser = add_backbone(arguments(__doc__, repetitions=3))
    parser.add_argument("--head", nargs="*", choices=list(_HEADS), help="only these heads")
    command(parser, measure)
