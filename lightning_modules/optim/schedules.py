"""Learning-rate schedules.

A schedule is a function of `step` and `total` that returns the factor on the learning rate. It
depends on nothing else, so a resumed run with more epochs follows the schedule of the new length.
`exponential` and `plateau` are exceptions: they take `optimizer` and `steps_per_epoch`, and return
a scheduler.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from run_folders.errors import UserError


class ScheduleError(UserError, ValueError):
    """A schedule that does not take what it needs."""


Schedule = Callable[..., Any]
Fraction = Annotated[float, Interval(ge=0, le=1)]

# First and last learning rate of OneCycle, as fractions of the peak.
_ONECYCLE_START, _ONECYCLE_END = 0.1, 0.001


def linear(step: int, total: int, warmup: Fraction = 0.1) -> float:
    """Rise to the peak over the warm-up, then fall to 0 in a straight line.

    Args:
        step: Number of optimizer steps taken, from 0.
        total: Number of optimizer steps of the whole run.
        warmup: Length of the warm-up as a fraction of all steps, 0..1.

    Returns:
        The factor on the learning rate, 0..1. The first step of a warm-up has a factor above 0, so
        that it trains.
    """
    rising = _rise(step, total, warmup)
    return _left(step, total, warmup) if rising is None else rising


def constant(step: int, total: int, warmup: Fraction = 0.1) -> float:
    """Rise to the peak over the warm-up, then stay there. Arguments: see `linear`."""
    rising = _rise(step, total, warmup)
    return 1.0 if rising is None else rising


def cosine(step: int, total: int, warmup: Fraction = 0.1, final: Fraction = 0.0) -> float:
    """Rise to the peak over the warm-up, then fall along half a cosine.

    This is SGDR's schedule without restarts (Loshchilov & Hutter 2017, arXiv 1608.03983).

    Args:
        step: Number of optimizer steps taken, from 0.
        total: Number of optimizer steps of the whole run.
        warmup: Length of the warm-up as a fraction of all steps, 0..1.
        final: The factor at the end, 0..1.

    Returns:
        The factor on the learning rate, `final`..1.
    """
    rising = _rise(step, total, warmup)
    if rising is not None:
        return rising
    return final + (1 - final) * (1 - math.cos(math.pi * _left(step, total, warmup))) / 2


def onecycle(step: int, total: int, warmup: Fraction = 0.1) -> float:
    """Rise from a tenth of the peak over the warm-up, then fall to a thousandth.

    From Smith & Topin 2017 (arXiv 1708.07120). Arguments: see `linear`.
    """
    warmup_steps = round(warmup * total)
    if step < warmup_steps:
        return _ONECYCLE_START + (1 - _ONECYCLE_START) * step / max(1, warmup_steps)
    return _ONECYCLE_END + (1 - _ONECYCLE_END) * _left(step, total, warmup)


def exponential(
    optimizer: Optimizer,
    steps_per_epoch: int,
    decay: Fraction = 0.9,
    min_lr: Annotated[float, Ge(0)] = 1e-7,
) -> LambdaLR:
    """Multiply the learning rate by `decay` each epoch.

    Args:
        optimizer: The optimizer; the learning rate of each group is its peak.
        steps_per_epoch: Number of optimizer steps of an epoch.
        decay: The factor, 0..1.
        min_lr: Lower bound of the learning rate.

    Returns:
        The scheduler, to be stepped after each optimizer step.
    """
    peaks: list[float] = [group["lr"] for group in optimizer.param_groups]
    floors = [min(1.0, min_lr / peak) if peak else 1.0 for peak in peaks]

    def factor(step: int, *, floor: float) -> float:
        return max(decay ** (step // steps_per_epoch), floor)

    return LambdaLR(optimizer, [partial(factor, floor=floor) for floor in floors])


def plateau(
    optimizer: Optimizer,
    steps_per_epoch: int,  # noqa: ARG001 - the arguments of `exponential`
    decay: Fraction = 0.9,
    min_lr: Annotated[float, Ge(0)] = 1e-7,
    patience: Annotated[int, Ge(0)] = 2,
    monitor: str = "val/acc",  # noqa: ARG001 - read by `monitor_of`
    mode: Literal["min", "max"] = "max",
) -> ReduceLROnPlateau:
    """Multiply the learning rate by `decay` when a metric has stopped improving.

    Args:
        optimizer: The optimizer; the learning rate of each group is its peak.
        steps_per_epoch: Unused.
        decay: The factor, 0..1.
        min_lr: Lower bound of the learning rate.
        patience: Number of epochs without improvement before the rate decays.
        monitor: The metric.
        mode: `min` if lower values of the metric are better, else `max`.

    Returns:
        The scheduler, to be stepped once an epoch with the metric.
    """
    floors = [min(min_lr, group["lr"]) for group in optimizer.param_groups]
    return ReduceLROnPlateau(optimizer, mode, decay, patience, min_lr=floors)


def _rise(step: int, total: int, warmup: float) -> float | None:
    """Return the factor during the warm-up, or None after it."""
    warmup_steps = round(warmup * total)
    return (step + 1) / (warmup_steps + 1) if step < warmup_steps else None


def _left(step: int, total: int, warmup: float) -> float:
    """Return the fraction of the steps after the warm-up that are left, 0..1."""
    return max(0.0, (total - step) / max(1, total - round(warmup * total)))


def lr_schedule(
    optimizer: Optimizer, schedule: Schedule, *, total_steps: int, steps_per_epoch: int
) -> LRScheduler:
    """Build the learning-rate scheduler.

    All groups follow the same curve, including those that are unfrozen late.

    Args:
        optimizer: The optimizer; the learning rate of each group is its peak.
        schedule: One of this module's functions, another function of `step` and `total`, or a
            `functools.partial` of one with options.
        total_steps: Number of optimizer steps of the whole run.
        steps_per_epoch: Number of optimizer steps of an epoch.

    Returns:
        The scheduler. Step it after each optimizer step; step `plateau` once an epoch, with the
        monitored metric.
    """
    if "optimizer" in inspect.signature(schedule).parameters:
        scheduler: LRScheduler = schedule(optimizer=optimizer, steps_per_epoch=steps_per_epoch)
        return scheduler
    # torch saves the attributes of a scheduler's function. A partial has none, so a checkpoint
    # does not hold the total of the run that wrote it.
    return LambdaLR(optimizer, partial(schedule, total=total_steps))


def monitor_of(schedule: Schedule) -> str:
    """Return the metric that `plateau` monitors.

    Raises:
        ScheduleError: If the schedule has no argument `monitor`.
    """
    parameters = inspect.signature(schedule).parameters
    if "monitor" not in parameters:
        msg = "model.schedule: a function that returns ReduceLROnPlateau needs an argument monitor"
        raise ScheduleError(msg)
    return str(parameters["monitor"].default)


def steps_per_epoch_of(batches: float, accumulate: int) -> int:
    """Return the number of optimizer steps of an epoch.

    Args:
        batches: Number of batches of an epoch.
        accumulate: Number of batches whose gradients are accumulated for one step.
    """
    return max(1, math.ceil(batches / accumulate))
