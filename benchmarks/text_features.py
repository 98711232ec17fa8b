"""Ten epochs of a head on a frozen BERT, tested once: Thaw against Hugging Face's Trainer.

    python -m benchmarks.text_features --data-dir DIR --backbone FOLDER

All sides share the weights, the tweets, batches of 32, at most 128 tokens, AdamW with one learning
rate, and clipped gradients. There are two heads: a linear one on the mean of the token states, and
a bidirectional GRU of 128 units on all token states.

- Thaw runs the encoder once and starts without stored features. It reads the train and the val
  split and evaluates val in every epoch. Each repetition has its own seed.
- A second Thaw run also reads the test split and tests on it, as `train.py` does by default.
- The Trainer reads the train and the val split and evaluates val once, at the end. The default is
  float32 in random order; the tuned one is bfloat16 with texts grouped by length.

All epochs of a baseline take the same time. The tuned baseline is measured on one complete run. The
default baseline trains one epoch, which counts ten times, and evaluates once.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.machine import operations_per_second
from benchmarks.measuring import setting
from benchmarks.rows import Limit, Row, arguments, command, ratio_goals
from benchmarks.text_runs import ThawRun, add_backbone, forward_operations
from benchmarks.trainer_runs import BaselineRun
from benchmarks.turns import Run, side_by_side, side_of

_EPOCHS, _LR, _WARMUP_STEPS = 10, 1e-3, 10
_ALL = "Thaw with the test split"
# Head -> experiment, and for each baseline the required ratio and the aim.
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
    overrides = {
        "model.lr": _LR,
        "data.batch_size": 32,
        "data.max_length": 128,
        "trainer.max_epochs": _EPOCHS,
    }
    baseline = partial(BaselineRun, given, _LR, epochs=_EPOCHS, head=head)  # type: ignore[arg-type]
    ours = partial(ThawRun, experiment, given, overrides, features="measured")
    makes: dict[str, Callable[[], Run]] = {
        "Thaw": ours,
        "default": partial(baseline, measured=1, tuned=False),
        "tuned": partial(baseline, tuned=True),
        _ALL: partial(ours, split="test"),
    }
    seeds = {"Thaw": given.repetitions, "default": 1, "tuned": 1, _ALL: given.repetitions}
    found = side_by_side(makes, given, seeds, warmth=_WARMUP_STEPS)
    metric = {"default": "val acc after one epoch", _ALL: "test acc"}
    sides = {name: side_of(trained, metric.get(name, "val acc")) for name, trained in found.items()}
    thaw = ThawRun(experiment, given, overrides)
    thaw.prepare(1)
    operations = sum(forward_operations(thaw, split) for split in ("train", "val"))
    limit = Limit(
        operations / rate,
        f"one forward pass, {operations / 1e12:.2f} TFLOP at {rate / 1e9:,.0f} GFLOP/s",
    )
    what = (
        f"{_EPOCHS} epochs of a {head} head on frozen {thaw.backbone_name}, "
        f"{thaw.train_rows:,} tweets, tested once on val"
    )
    versions = setting("torch", "lightning", "transformers", "accelerate")
    return Row(
        f"S2 {head}", what, sides, ratio_goals(sides, *wanted), versions, limit, given.device
    )


if __name__ == "__main__":
    parser = add_backbone(arguments(__doc__, repetitions=3))
    parser.add_argument("--head", nargs="*", choices=list(_HEADS), help="measure these heads only")
    command(parser, measure)
