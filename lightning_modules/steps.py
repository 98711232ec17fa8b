"""Optimiser steps: how many there will be, and several of them in one of Lightning's."""

from typing import TYPE_CHECKING, Any, cast

import lightning
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from datamodules.batches import FeatureBatch
from lightning_modules.losses import NonFiniteLossError
from lightning_modules.optim import steps_in

if TYPE_CHECKING:
    from lightning_modules.base import Task
    from lightning_modules.totals import StageTotals


def planned_steps(trainer: lightning.Trainer) -> tuple[int, int]:
    """Steps of the whole training and of an epoch; where batches are handed over together, each of them is one."""
    total = int(trainer.estimated_stepping_batches)  # also makes the number of batches known
    loader: Any = trainer.train_dataloader
    order = getattr(getattr(loader, "batch_sampler", None), "order", None)
    if order is None:
        return total, steps_in(int(trainer.num_training_batches), trainer.accumulate_grad_batches)
    steps = len(order)
    return steps * int(trainer.max_epochs or 0), steps


def steps_but_the_last(task: "Task", together: FeatureBatch, totals: "StageTotals | None", first: int) -> FeatureBatch:
    """Take the steps of batches that were handed over together, but for the last, which is left to Lightning.

    What Lightning does around a step takes longer than the step of a linear head on stored features. This does what belongs
    to the step itself, in the same order: zero the gradients, backward, clip, step, schedule.

    Args:
        task: In training.
        together: Batches end to end, with their `batch_sizes`.
        totals: Where they count.
        first: Number of the first of them in its epoch.

    Returns:
        The last batch.

    Raises:
        NonFiniteLossError: If the loss of one of them is no number.
    """
    trainer, optimizer = task.trainer, task.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, torch.optim.Optimizer)  # noqa: S101 - tells the type checker
    scheduler = task.lr_schedulers()
    each_step = isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau)
    *batches, last = split_batches(together)
    losses: list[Tensor] = []
    for batch in batches:
        loss = task.shared_step(batch, totals)
        losses.append(loss.detach())
        with torch.autocast(task.device.type, enabled=False):  # Lightning, too, does the rest outside of it
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            task.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
            optimizer.step()
        if each_step:
            scheduler.step()  # type: ignore[union-attr]
    if losses:
        _refuse_what_is_no_number(torch.stack(losses), batches, task.current_epoch, first)
    done = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
    for progress in (done.total, done.current):  # what `trainer.global_step` is read from
        progress.ready += len(batches)
        progress.completed += len(batches)
    return last


def _refuse_what_is_no_number(losses: Tensor, batches: list[FeatureBatch], epoch: int, first: int) -> None:
    wrong = (~torch.isfinite(losses)).nonzero()
    if len(wrong):
        place = int(wrong[0])
        raise NonFiniteLossError.of_batch(losses[place], epoch, first + place, batches[place]["index"])


def split_batches(together: FeatureBatch) -> list[FeatureBatch]:
    """The batches that stand end to end."""
    named: dict[str, Any] = {name: value for name, value in together.items() if name != "batch_sizes"}
    names, sizes = list(named), together["batch_sizes"]
    parts = [value if isinstance(value, list) else torch.split(value, sizes) for value in named.values()]
    return [cast(FeatureBatch, dict(zip(names, part, strict=True))) for part in zip(*parts, strict=True)]
