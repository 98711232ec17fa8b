"""Learning-rate schedules."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

ScheduleName = Literal["linear", "constant", "exponential", "onecycle", "plateau"]

# First and last learning rate of OneCycle, as fractions of the peak.
_ONECYCLE_START, _ONECYCLE_END = 0.1, 0.001


@dataclass(frozen=True)
class Schedule:
    """How learning rates change over a run.

    Attributes:
        name: `linear` rises over the warm-up and falls to zero. `constant` stays at the peak after
            the warm-up. `exponential` is multiplied by `decay` each epoch. `onecycle` (Smith &
            Topin 2017, arXiv 1708.07120) rises from a tenth of the peak over the warm-up and falls
            to a thousandth. `plateau` is multiplied by `decay` when the monitored metric has
            stopped improving.
        warmup: Length of the warm-up as a fraction of all steps, 0..1; unused by `exponential` and
            `plateau`.
        decay: Factor of `exponential` and `plateau`, 0..1.
        min_lr: Lower bound of `exponential` and `plateau`.
        patience: Number of epochs without improvement before `plateau` decays.
        monitor: The metric that `plateau` monitors.
        mode: `min` if lower values of the monitored metric are better, else `max`.
    """

    name: ScheduleName = "linear"
    warmup: float = 0.1
    decay: float = 0.9
    min_lr: float = 1e-7
    patience: int = 2
    monitor: str = "val/acc"
    mode: str = "max"


def lr_factor(step: int, *, name: ScheduleName, warmup_steps: int, total_steps: int) -> float:
    """Return the factor on the learning rate at a step.

    Args:
        step: Number of optimizer steps taken, from 0.
        name: `linear` rises to 1 over the warm-up and falls to 0 at the end; `constant` stays at 1
            after the warm-up; `onecycle` rises from a tenth and falls to a thousandth.
        warmup_steps: Number of steps until the factor is 1.
        total_steps: Number of steps of the whole run.

    Returns:
        The factor, 0..1. The first step of a warm-up has a factor above 0, so that it trains.
    """
    left = max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))
    if name == "onecycle":
        rise = _ONECYCLE_START + (1 - _ONECYCLE_START) * step / max(1, warmup_steps)
        return rise if step < warmup_steps else _ONECYCLE_END + (1 - _ONECYCLE_END) * left
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 1.0 if name == "constant" else left


def exponential_factor(step: int, *, decay: float, floor: float, steps_per_epoch: int) -> float:
    """Return `decay` to the power of the step's epoch, but at least `floor`."""
    return max(decay ** (step // steps_per_epoch), floor)


def lr_schedule(
    optimizer: torch.optim.Optimizer, schedule: Schedule, *, total_steps: int, steps_per_epoch: int
) -> LRScheduler:
    """Build the learning-rate scheduler.

    All schedules but `plateau` depend on the step alone. All groups therefore follow the same
    curve, including those that are unfrozen late.

    Args:
        optimizer: The optimizer; the learning rate of each group is its peak.
        schedule: The options of the schedule.
        total_steps: Number of optimizer steps of the whole run.
        steps_per_epoch: Number of optimizer steps of an epoch.

    Returns:
        The scheduler. Step it after each optimizer step; step `plateau` once an epoch, with the
        monitored metric.
    """
    peaks: list[float] = [group["lr"] for group in optimizer.param_groups]
    if schedule.name == "plateau":
        return ReduceLROnPlateau(
            optimizer,
            "min" if schedule.mode == "min" else "max",
            schedule.decay,
            schedule.patience,
            min_lr=[min(schedule.min_lr, peak) for peak in peaks],
        )
    if schedule.name == "exponential":
        floors = [min(1.0, schedule.min_lr / peak) if peak else 1.0 for peak in peaks]
        return LambdaLR(
            optimizer,
            [
                partial(
                    exponential_factor,
                    decay=schedule.decay,
                    floor=floor,
                    steps_per_epoch=steps_per_epoch,
                )
                for floor in floors
            ],
        )
    warmup_steps = round(schedule.warmup * total_steps)
    return LambdaLR(
        optimizer,
        partial(lr_factor, name=schedule.name, warmup_steps=warmup_steps, total_steps=total_steps),
    )


def steps_per_epoch_of(batches: float, accumulate: int) -> int:
    """Return the number of optimizer steps of an epoch.

    Args:
        batches: Number of batches of an epoch.
        accumulate: Number of batches whose gradients are accumulated for one step.
    """
    return max(1, math.ceil(batches / accumulate))
