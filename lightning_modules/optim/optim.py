"""Optimiser and learning-rate schedules."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

OptimizerName = Literal["adamw", "sgd"]
ScheduleName = Literal["linear", "constant", "exponential", "onecycle", "plateau"]

# Of the peak: where OneCycle starts and ends.
_ONECYCLE_START, _ONECYCLE_END = 0.1, 0.001
_CLIP_EPSILON = 1e-6  # torch's


@dataclass(frozen=True)
class Schedule:
    """How learning rates change over a run.

    Attributes:
        name: `linear` rises over the warm-up and falls to zero; `constant` stays up after it;
            `exponential` is multiplied by `decay` each epoch; `onecycle` (Smith & Topin 2017, arXiv
            1708.07120) rises from a tenth over the warm-up and falls to a thousandth; `plateau` is
            multiplied by `decay` once the monitored metric has stood still.
        warmup: Fraction of all steps, 0..1; `exponential` and `plateau` have none.
        decay: Factor, 0..1.
        min_lr: What `exponential` and `plateau` do not fall below.
        patience: Epochs without a better metric that `plateau` waits for.
        monitor, mode: The metric, and whether min or max of it is better.
    """

    name: ScheduleName = "linear"
    warmup: float = 0.1
    decay: float = 0.9
    min_lr: float = 1e-7
    patience: int = 2
    monitor: str = "val/acc"
    mode: str = "max"


def parameter_groups(
    network: nn.Module,
    lrs: Mapping[str, float],
    weight_decay: float,
    group_of: Callable[[str], tuple[str, float]] = lambda _: ("", 1.0),
) -> list[dict[str, Any]]:
    """Put every parameter, frozen ones too, into a named group.

    Weights are decayed; biases and the gains of norms, all of which have fewer than two dimensions,
    are not, and what a module names in `no_weight_decay()`, as timm's networks do for tokens and
    positions, is not either.

    Args:
        network: With a child module for each name in `lrs`.
        lrs: Child -> learning rate.
        weight_decay: Of the decayed groups.
        group_of: Parameter's name -> what its group's name has behind the child's, and a factor on
            its learning rate.

    Returns:
        Groups called `<child><suffix>` and `<child><suffix>_no_decay`, empty ones left out.
    """
    groups: dict[str, dict[str, Any]] = {}
    spared = {
        f"{name}.{own}"
        for name, module in network.named_modules()
        if hasattr(module, "no_weight_decay")
        for own in module.no_weight_decay()
    }
    for child, lr in lrs.items():
        names = [f"{child}.{name}" for name, _ in network.get_submodule(child).named_parameters()]
        suffixes = dict(group_of(name) for name in names)
        for suffix, factor in suffixes.items():
            for kind, decay in (("", weight_decay), ("_no_decay", 0.0)):
                name = f"{child}{suffix}{kind}"
                groups[name] = {
                    "name": name,
                    "params": [],
                    "lr": lr * factor,
                    "weight_decay": decay,
                }
        for name in names:
            parameter, (suffix, _) = network.get_parameter(name), group_of(name)
            kind = "" if parameter.ndim > 1 and name not in spared else "_no_decay"
            groups[f"{child}{suffix}{kind}"]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def make_optimizer(
    name: OptimizerName, groups: list[dict[str, Any]], *, momentum: float
) -> torch.optim.Optimizer:
    """An optimiser over the groups, each of whose steps reads a weight once.

    Args:
        name: `adamw` (Loshchilov & Hutter 2019, arXiv 1711.05101; without weight decay it is Adam),
            or `sgd` with Nesterov's momentum.
        groups: Of `parameter_groups`.
        momentum: Of `sgd`, 0..1.

    Returns:
        The optimiser.
    """
    if name == "adamw":
        fused: torch.optim.Optimizer = AdamW(groups, fused=True)
    else:
        fused = SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=True)
    # Else a scaler of float16's gradients would leave unscaling them to the step, and Lightning
    # clips nothing that is scaled.
    fused._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # noqa: SLF001
    return fused


def clips_itself(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimiser's own step can divide the gradients by a number, as a fused one can; but on Apple's MPS."""
    device = optimizer.param_groups[0]["params"][0].device.type
    return bool(optimizer.defaults.get("fused")) and device in ("cpu", "cuda")


def clip_in_step(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Have the optimiser's next step clip the gradients by their norm, in the pass in which it reads them.

    Clipping beforehand (Pascanu, Mikolov & Bengio 2013, arXiv 1211.5063) would read and write each
    gradient once more. As torch's, it multiplies by max_norm / (norm + 1e-6) where that is below 1;
    on a CPU, where looking is free, gradients that are not to be clipped stay as they are.

    Args:
        optimizer: One that `clips_itself`.
        max_norm: What the Euclidean norm of all gradients together shall not exceed.
    """
    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    scale = (torch.nn.utils.get_total_norm(gradients) + _CLIP_EPSILON) / max_norm
    # A norm that is no number is not <= 1, and spreads to all weights.
    unclipped = scale.device.type == "cpu" and bool(scale <= 1)
    optimizer.grad_scale = None if unclipped else scale.clamp(min=1).float()  # type: ignore[attr-defined]


def lr_factor(step: int, *, name: ScheduleName, warmup_steps: int, total_steps: int) -> float:
    """Factor on the learning rate at a step.

    Args:
        step: Optimiser steps taken, from 0.
        name: `linear` rises to 1 over the warm-up and falls to 0 at the end; `constant` stays at 1
            after it; `onecycle` rises from a tenth and falls to a thousandth.
        warmup_steps: Steps until the factor is 1.
        total_steps: Steps of the whole run.

    Returns:
        0..1. The first step of a warm-up is not wasted on a factor of 0.
    """
    left = max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))
    if name == "onecycle":
        rise = _ONECYCLE_START + (1 - _ONECYCLE_START) * step / max(1, warmup_steps)
        return rise if step < warmup_steps else _ONECYCLE_END + (1 - _ONECYCLE_END) * left
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 1.0 if name == "constant" else left


def exponential_factor(step: int, *, decay: float, floor: float, steps_per_epoch: int) -> float:
    """`decay` to the power of the epoch that a step belongs to, but not below `floor`."""
    return max(decay ** (step // steps_per_epoch), floor)


def lr_schedule(
    optimizer: torch.optim.Optimizer, schedule: Schedule, *, total_steps: int, steps_per_epoch: int
) -> LRScheduler:
    """A schedule to be stepped after each optimiser step; `plateau` once an epoch, with the monitored metric.

    Nothing but `plateau` depends on anything but the step, so that all groups, those that are
    unfrozen late too, follow the same curve.

    Args:
        optimizer: Each group keeps its own peak.
        schedule: What is wanted.
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of an epoch.

    Returns:
        The scheduler.
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


def steps_in(batches: float, accumulate: int) -> int:
    """Optimiser steps of an epoch."""
    return max(1, math.ceil(batches / accumulate))
