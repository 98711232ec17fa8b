"""Optimizers, and gradient clipping inside their step."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from run_folders.errors import UserError, brief

OptimizerFactory = Callable[..., Optimizer]

_CLIP_EPSILON = 1e-6  # the same as in torch's `clip_grad_norm_`


class OptimizerError(UserError, ValueError):
    """An optimizer that cannot train the parameter groups."""


def make_optimizer(factory: OptimizerFactory, groups: list[dict[str, Any]]) -> Optimizer:
    """Build an optimizer, fused if its class can: each step then reads every weight once.

    Args:
        factory: An optimizer's class, or a `functools.partial` of it with options.
        groups: Groups from `parameter_groups`, each with its learning rate and weight decay.

    Returns:
        The optimizer.

    Raises:
        OptimizerError: If the optimizer rejects the groups or its options, or has no weight decay.
    """
    parameters = inspect.signature(factory).parameters
    cls = factory.func if isinstance(factory, partial) else factory
    name = getattr(cls, "__name__", repr(cls))
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    decays = open_ended or "weight_decay" in parameters
    if not decays and any(group["weight_decay"] for group in groups):
        msg = f"model.optimizer: {name} has no weight decay; set model.weight_decay=0"
        raise OptimizerError(msg)
    # An argument of this name may mean something else in other packages.
    of_torch = str(getattr(cls, "__module__", "")).startswith("torch.optim")
    fused = {"fused": True} if of_torch and "fused" in parameters else {}
    try:
        optimizer = factory(groups, **{**fused, **getattr(factory, "keywords", {})})
    except (TypeError, ValueError, RuntimeError) as error:
        msg = f"model.optimizer: {name} cannot be built: {brief(error)}"
        raise OptimizerError(msg) from error
    if of_torch and optimizer.defaults.get("fused"):
        # With the flag set, torch's GradScaler (float16) leaves unscaling to the optimizer step.
        # Lightning refuses to clip gradients that are still scaled.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # noqa: SLF001
    return optimizer


def supports_fused_clipping(optimizer: Optimizer) -> bool:
    """Return whether the optimizer's step can scale gradients: fused, and on the CPU or CUDA.

    The fused step for Apple's MPS cannot.
    """
    device = optimizer.param_groups[0]["params"][0].device.type
    of_torch = type(optimizer).__module__.startswith("torch.optim")
    return of_torch and bool(optimizer.defaults.get("fused")) and device in ("cpu", "cuda")


def clip_in_step(optimizer: Optimizer, max_norm: float) -> None:
    """Make the optimizer's next step clip the gradients by norm while it reads them.

    Clipping before the step (Pascanu, Mikolov & Bengio 2013, arXiv 1211.5063) reads and writes each
    gradient once more. Like torch, this multiplies by max_norm / (norm + 1e-6) if that is below 1.
    On a CPU, where comparing the norm needs no synchronisation, gradients below the limit are not
    scaled at all.

    Args:
        optimizer: An optimizer for which `supports_fused_clipping` returns True.
        max_norm: Upper limit of the Euclidean norm over all gradients.
    """
    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    scale = (torch.nn.utils.get_total_norm(gradients) + _CLIP_EPSILON) / max_norm
    # A NaN norm is not <= 1; it makes all weights NaN.
    unclipped = scale.device.type == "cpu" and bool(scale <= 1)
    optimizer.grad_scale = None if unclipped else scale.clamp(min=1).float()  # type: ignore[attr-defined]
