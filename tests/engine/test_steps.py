"""Optimizer steps follow gradient clipping and the learning rate schedule."""

from functools import partial
from typing import Any

import lightning
import pytest
import torch

from lightning_modules.optim.schedules import (
    Schedule,
    constant,
    cosine,
    exponential,
    linear,
    onecycle,
)
from tests.engine.test_feature_cache import parts_of, text_task, texts

PLAIN = {
    "optimizer": torch.optim.SGD,
    "weight_decay": 0.0,
    "schedule": partial(constant, warmup=0.0),
    "lr": 1.0,
}
ROWS = {"train": 16, "val": 8, "test": 8}


@pytest.mark.parametrize(("algorithm", "expected"), [("norm", 0.02), (None, 0.02), ("value", 1e-4)])
def test_clipping_limits_the_length_of_a_step(algorithm: str | None, expected: float) -> None:
    clipped = {"gradient_clip_val": expected, "gradient_clip_algorithm": algorithm}
    parts = parts_of(texts(rows=ROWS, batch_size=16), text_task(**PLAIN), max_epochs=1, **clipped)
    before = torch.cat([p.detach().clone().flatten() for p in parts.task.network.head.parameters()])
    parts.trainer.fit(parts.task, datamodule=parts.datamodule)
    assert parts.trainer.global_step == 1
    moved = torch.cat([p.detach().flatten() for p in parts.task.network.head.parameters()]) - before
    length = moved.abs().max() if algorithm == "value" else moved.norm()
    assert float(length) == pytest.approx(expected, rel=1e-3)


def test_a_step_without_clipping_ignores_the_previous_grad_scale() -> None:
    class StopClipping(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.gradient_clip_val = None

    parts = parts_of(texts(rows=ROWS), text_task(**PLAIN), max_epochs=1, gradient_clip_val=1e-3)
    parts.trainer.callbacks.append(StopClipping())  # type: ignore[attr-defined]
    parts.trainer.fit(parts.task, datamodule=parts.datamodule)
    assert parts.trainer.global_step == 2
    assert parts.trainer.optimizers[0].grad_scale is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("schedule", "accumulate", "steps", "factor"),
    [
        (onecycle, 1, 18, 0.001),
        (linear, 4, 6, 0.0),
        (cosine, 4, 6, 0.0),
        (exponential, 1, 18, 0.9**3),
        (exponential, 4, 6, 0.9**3),
    ],
)
def test_the_schedule_counts_optimizer_steps(
    schedule: Schedule, accumulate: int, steps: int, factor: float
) -> None:
    parts = parts_of(
        texts(), text_task(schedule=schedule, lr=0.02), accumulate_grad_batches=accumulate
    )
    parts.trainer.fit(parts.task, datamodule=parts.datamodule)
    assert parts.trainer.global_step == steps
    rates = {group["name"]: group["lr"] for group in parts.trainer.optimizers[0].param_groups}
    assert rates["head"] == pytest.approx(0.02 * factor)
