"""Optimiser and learning-rate schedules."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

Schedule = Literal["linear", "constant"]


def parameter_groups(network: nn.Module, lrs: Mapping[str, float], weight_decay: float) -> list[dict[str, Any]]:
    """Put every parameter, frozen ones too, into a named group.

    Weights are decayed; biases and the gains of norms, all of which have fewer than two dimensions, are not.

    Args:
        network: With a child module for each name in `lrs`.
        lrs: Child -> learning rate.
        weight_decay: Of the decayed groups.

    Returns:
        Groups called `<child>` and `<child>_no_decay`, empty ones left out.
    """
    groups = []
    for child, lr in lrs.items():
        parameters = list(network.get_submodule(child).parameters())
        decayed = [p for p in parameters if p.ndim > 1]
        plain = [p for p in parameters if p.ndim <= 1]
        groups += [
            {"name": child, "params": decayed, "lr": lr, "weight_decay": weight_decay},
            {"name": f"{child}_no_decay", "params": plain, "lr": lr, "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]


def adamw(groups: list[dict[str, Any]], *, fused: bool) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) over the groups."""
    return AdamW(groups, fused=fused)


def lr_factor(step: int, *, schedule: Schedule, warmup_steps: int, total_steps: int) -> float:
    """Factor on the learning rate at a step.

    Args:
        step: Optimiser steps taken, from 0.
        schedule: `linear` rises to 1 over the warm-up and falls to 0 at the end; `constant` stays at 1 after it.
        warmup_steps: Steps until the factor is 1.
        total_steps: Steps of the whole run.

    Returns:
        0..1. The first step of a warm-up is not wasted on a factor of 0.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def lr_schedule(optimizer: torch.optim.Optimizer, *, schedule: Schedule, warmup: float, total_steps: int) -> LambdaLR:
    """A schedule over optimiser steps.

    Args:
        optimizer: All its groups follow the same factor.
        schedule: See `lr_factor`.
        warmup: Fraction of all steps, 0..1.
        total_steps: Steps of the whole run.

    Returns:
        To be stepped after each optimiser step.
    """
    warmup_steps = round(warmup * total_steps)
    factor = partial(lr_factor, schedule=schedule, warmup_steps=warmup_steps, total_steps=total_steps)
    return LambdaLR(optimizer, factor)
