"""Check the trainer's keys: a run has a length, and no value is one that Thaw cannot honour."""

from collections.abc import Iterator
from typing import Any

from engine.config.signatures import Fault
from run_folders.nested import value_at

# Keys that must not be 0: without training and validation there is no best checkpoint, and without
# a test there is no result.
_NOT_ZERO = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.limit_train_batches",
    "trainer.limit_val_batches",
    "trainer.limit_test_batches",
)


def length_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that a run trains, validates and ends."""
    for key in _NOT_ZERO:
        if value_at(values, key) == 0:
            yield key, "received 0; a run trains, validates and tests"
    every = value_at(values, "trainer.check_val_every_n_epoch")
    epochs, steps = (value_at(values, f"trainer.max_{unit}") for unit in ("epochs", "steps"))
    if isinstance(every, int) and isinstance(epochs, int) and 0 < epochs < every:
        yield (
            "trainer.check_val_every_n_epoch",
            f"received {every}, and trainer.max_epochs={epochs}: no epoch would be validated",
        )
    accumulated = value_at(values, "trainer.accumulate_grad_batches")
    if accumulated is not None and (not isinstance(accumulated, int) or accumulated < 1):
        yield "trainer.accumulate_grad_batches", f"received {accumulated!r}; at least 1 is needed"
    if epochs in (None, -1) and steps in (None, -1):
        yield (
            "trainer.max_epochs",
            f"received {epochs!r}, and no trainer.max_steps; a schedule needs an end",
        )
    plateau = str(value_at(values, "model.schedule._target_")).endswith(".plateau")
    if plateau and every not in (None, 1):
        yield (
            "trainer.check_val_every_n_epoch",
            "received more than 1; schedule=plateau needs a validation in every epoch",
        )


def trainer_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check the keys whose values Lightning accepts and Thaw cannot honour."""
    trainer = values.get("trainer")
    if not isinstance(trainer, dict):
        return
    if trainer.get("use_distributed_sampler"):
        yield (
            "trainer.use_distributed_sampler",
            "received true; Thaw's own samplers divide each batch among the processes: "
            "leave it out",
        )
    if isinstance(trainer.get("val_check_interval"), str | dict):
        yield (
            "trainer.val_check_interval",
            f"received {trainer['val_check_interval']!r}; a time is not reproducible: "
            "give a number of batches, or a share of an epoch",
        )
    if trainer.get("overfit_batches"):
        for key in ("limit_train_batches", "limit_val_batches"):
            limit = trainer.get(key)
            if limit is not None and (limit != 1.0 or isinstance(limit, int)):
                yield (
                    f"trainer.{key}",
                    f"received {limit!r}, and trainer.overfit_batches sets it too; "
                    "leave one of them out",
                )
