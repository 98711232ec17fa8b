"""An epoch of fine-tuning a small BERT on tweets: Thaw against Hugging Face's Trainer.

    python -m benchmarks.text_finetuning --data-dir DIR --backbone FOLDER

All sides share the encoder's weights and dropout, the tweets, batches of 32, at most 128 tokens,
AdamW with one learning rate, and clipped gradients. After the epoch the val split is evaluated
once. The default Trainer is float32 in random order, with each batch padded to its longest text.
The tuned one is bfloat16 with batches grouped by length.

Each repetition has its own seed, so there is an accuracy per seed. A second Thaw run in float32
shows the effect of bfloat16 on the accuracy.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.machine import operations_per_second
from benchmarks.measuring import setting
from benchmarks.rows import Goal, Limit, Row, arguments, command, ratio_goals
from benchmarks.text_runs import ThawRun, add_backbone, training_operations
from benchmarks.trainer_runs import BaselineRun
from benchmarks.turns import Run, side_by_side, side_of

_LR, _WARMUP_STEPS = 1e-4, 20
# At most; Thaw has more, as its accuracies in bfloat16 and float32 are compared.
_BASELINE_REPETITIONS = {"default": 1, "tuned": 3}
_CHANGE = 0.005  # allowed loss of accuracy; another seed changes it by as much
_OVERRIDES = {
    "model.lr": _LR,
    "model.backbone_lr": _LR,
    "data.batch_size": 32,
    "data.max_length": 128,
    "trainer.max_epochs": 1,
}


def measure(given: argparse.Namespace) -> list[Row]:
    """Train each side once for each seed."""
    makes: dict[str, Callable[[], Run]] = {
        "Thaw": partial(ThawRun, "minilm_finetune", given, _OVERRIDES),
        "default": partial(BaselineRun, given, _LR, epochs=1, tuned=False),
        "tuned": partial(BaselineRun, given, _LR, epochs=1, tuned=True),
        "Thaw in float32": partial(
            ThawRun, "minilm_finetune", given, {**_OVERRIDES, "trainer.precision": "32-true"}
        ),
    }
    most = given.repetitions
    seeds = {name: min(most, _BASELINE_REPETITIONS.get(name, most)) for name in makes}
    found = side_by_side(makes, given, seeds, warmth=_WARMUP_STEPS)
    sides = {name: side_of(trained, "val acc") for name, trained in found.items()}
    thaw = ThawRun("minilm_finetune", given, _OVERRIDES)
    thaw.prepare(1)
    operations, rate = (
        training_operations(thaw),
        operations_per_second(torch.bfloat16, given.device),
    )
    limit = Limit(
        operations / rate,
        f"{operations / 1e12:.2f} TFLOP of real tokens at {rate / 1e9:,.0f} GFLOP/s in bfloat16",
    )
    pairs = zip(found["Thaw"], found["Thaw in float32"], strict=True)
    change = statistics.mean(half.accuracy - whole.accuracy for half, whole in pairs)
    goals = ratio_goals(sides, ("default", 4, 6), ("tuned", 1.5, 2.5))
    goals += (Goal("accuracy less that in float32, mean of the seeds", change, -_CHANGE),)
    what = (
        f"fine-tuning {thaw.backbone_name} for an epoch of {thaw.train_rows:,} tweets, "
        f"and its validation"
    )
    versions = setting("torch", "lightning", "transformers", "accelerate")
    return [Row("S1", what, sides, goals, versions, limit, given.device)]


if __name__ == "__main__":
    command(add_backbone(arguments(__doc__, repetitions=5)), measure)
