"""Parameter groups, optimizers and learning-rate schedules."""

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

# First and last learning rate of OneCycle, as fractions of the peak.
_ONECYCLE_START, _ONECYCLE_END = 0.1, 0.001
_CLIP_EPSILON = 1e-6  # the same as in torch's `clip_grad_norm_`


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


def parameter_groups(
    network: nn.Module,
    lrs: Mapping[str, float],
    weight_decay: float,
    group_of: Callable[[str], tuple[str, float]] = lambda _: ("", 1.0),
) -> list[dict[str, Any]]:
    """Sort all parameters, including frozen ones, into named groups.

    Weight decay does not apply to biases and to the gains of norms: parameters with fewer than two
    dimensions. It does not apply either to the parameters that a module lists in
    `no_weight_decay()`. timm's networks list tokens and position embeddings there.

    Args:
        network: A network that has a child module for each name in `lrs`.
        lrs: Child -> learning rate.
        weight_decay: Weight decay of the decayed groups.
        group_of: Parameter's name -> suffix of its group's name, and a factor on its learning rate.

    Returns:
        Non-empty groups, named `<child><suffix>` and `<child><suffix>_no_decay`.
    """
    groups: dict[str, dict[str, Any]] = {}
    undecayed = {
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
            kind = "" if parameter.ndim > 1 and name not in undecayed else "_no_decay"
            groups[f"{child}{suffix}{kind}"]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def make_optimizer(
    name: OptimizerName, groups: list[dict[str, Any]], *, momentum: float
) -> torch.optim.Optimizer:
    """Build a fused optimizer: each step reads every weight once.

    Args:
        name: `adamw` (Loshchilov & Hutter 2019, arXiv 1711.05101), which is Adam without weight
            decay, or `sgd` with Nesterov momentum.
        groups: Groups from `parameter_groups`.
        momentum: Momentum of `sgd`, 0..1.

    Returns:
        The optimizer.
    """
    if name == "adamw":
        fused: torch.optim.Optimizer = AdamW(groups, fused=True)
    else:
        fused = SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=True)
    # With the flag set, torch's GradScaler (float16) leaves unscaling to the optimizer step.
    # Lightning refuses to clip gradients that are still scaled.
    fused._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # noqa: SLF001
    return fused


def clips_itself(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the optimizer's step can scale gradients: fused, and on the CPU or CUDA.

    The fused step for Apple's MPS cannot.
    """
    device = optimizer.param_groups[0]["params"][0].device.type
    return bool(optimizer.defaults.get("fused")) and device in ("cpu", "cuda")


def clip_in_step(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Make the optimizer's next step clip the gradients by norm while it reads them.

    Clipping before the step (Pascanu, Mikolov & Bengio 2013, arXiv 1211.5063) reads and writes each
    gradient once more. Like torch, this multiplies by max_norm / (norm + 1e-6) if that is below 1.
    On a CPU, where comparing the norm needs no synchronisation, gradients below the limit are not
    scaled at all.

    Args:
        optimizer: An optimizer for which `clips_itself` returns True.
        max_norm: Upper limit of the Euclidean norm over all gradients.
    """
    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    scale = (torch.nn.utils.get_total_norm(gradients) + _CLIP_EPSILON) / max_norm
    # A NaN norm is not <= 1; it makes all weights NaN.
    unclipped = scale.device.type == "cpu" and bool(scale <= 1)
    optimizer.grad_scale = None if unclipped else scale.clamp(min=1).float()  # type: ignore[attr-defined]


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


def steps_in(batches: float, accumulate: int) -> int:
    """Return the number of optimizer steps of an epoch.

    Args:
        batches: Number of batches of an epoch.
        accumulate: Number of batches whose gradients are accumulated for one step.
    """
    return max(1, math.ceil(batches / accumulate))
