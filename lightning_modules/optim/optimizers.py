"""Optimizers, and gradient clipping inside their step."""

from typing import Any, Literal

import torch
from torch.optim import SGD, AdamW

OptimizerName = Literal["adamw", "sgd"]

_CLIP_EPSILON = 1e-6  # the same as in torch's `clip_grad_norm_`


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


def supports_fused_clipping(optimizer: torch.optim.Optimizer) -> bool:
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
