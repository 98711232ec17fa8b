"""Cross-entropy of logits that are upsampled to the size of the labels, some rows at a time.

The plain formula, `cross_entropy(interpolate(logits, labels.shape[-2:], mode="bilinear"), labels)`,
stores three tensors [B, K, H, W]: the upsampled logits, the log-probabilities and their gradient.
This module upsamples one strip of rows at a time. It computes the strip's part of the loss, of the
predictions and of the gradient (at the size of the logits), and then discards the strip.

Shapes: `B` images, `K` classes, `h` x `w` the size of the logits, `H` x `W` that of the labels.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from datamodules.batches import IGNORE_INDEX

# Elements of a strip. On a CPU a strip fits into the caches. Elsewhere it is a fixed share of the
# tensor, so that there are few, large kernels.
_CPU_STRIP = 2**21
_SHARE = 32


def upsampled_cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy over the labelled pixels, and the predictions of all pixels.

    Upsampling is bilinear between pixel centres (`align_corners=False`). Autocast has no effect:
    computation is in float64 for float64 logits, else in float32. If TF32 is enabled in torch, the
    upsampling has TF32 precision.

    Args:
        logits: [B, K, h, w] of any floating dtype.
        labels: [B, H, W] uint8, 0..K-1, or 255 for unlabelled pixels.
        label_smoothing: Share of each label that is spread evenly over all classes (Szegedy et al.
            2016, arXiv 1512.00567).

    Returns:
        The loss in nats, a scalar, and the predictions, [B, H, W] uint8, also for unlabelled
        pixels. Without any labelled pixel, the loss and its gradient are 0.
    """
    differentiable = torch.is_grad_enabled() and logits.requires_grad
    loss, predictions = _StripwiseLoss.apply(logits, labels, label_smoothing, differentiable)
    return loss, predictions


def upsampled_predictions(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the most probable class of each pixel at the size of the labels.

    Args:
        logits: [B, K, h, w] of any floating dtype.
        labels: [B, H, W] uint8; only the size is used.

    Returns:
        [B, H, W] uint8.
    """
    unlabelled = torch.full_like(labels, IGNORE_INDEX)
    return upsampled_cross_entropy(logits.detach(), unlabelled)[1]


class _StripwiseLoss(torch.autograd.Function):
    """The loss; `forward` also computes the gradient and saves it for `backward`."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        logits: Tensor,
        labels: Tensor,
        label_smoothing: float,
        differentiable: bool,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(logits.device.type, enabled=False):
            loss, predictions, gradient = _sum_over_strips(
                logits, labels, label_smoothing, differentiable=differentiable
            )
        ctx.dtype = logits.dtype
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(predictions)
        ctx.set_materialize_grads(value=False)
        return loss, predictions

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        grad_loss: Tensor | None,
        _: None,
    ) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        grad = None if grad_loss is None else (gradient * grad_loss).to(ctx.dtype)
        return grad, None, None, None


def _sum_over_strips(
    logits: Tensor, labels: Tensor, label_smoothing: float, *, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the predictions and the gradient [B, K, h, w], empty if not needed."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    (b, k, h, w), (height, width) = logits.shape, labels.shape[-2:]
    down, across = (
        _upsampling_weights(n, m, dtype, logits.device) for n, m in ((h, height), (w, width))
    )
    labelled = labels != IGNORE_INDEX
    count = labelled.sum().clamp(min=1).to(dtype)
    # A sum over many pixels: in float64 it hardly depends on the order. MPS has no float64.
    sum_dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    loss = torch.zeros((), dtype=sum_dtype, device=logits.device)
    predictions = torch.empty_like(labels, memory_format=torch.contiguous_format)
    gradient = torch.zeros(
        (b, k, h, w) if differentiable else (0,), dtype=dtype, device=logits.device
    )
    strip = _CPU_STRIP if logits.device.type == "cpu" else b * k * height * width // _SHARE
    rows = min(height, max(1, strip // (b * k * width)))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        first, last = _source_rows(top, bottom, h / height, h)
        mix = down[first:last, top:bottom]
        source = logits[:, :, first:last].to(dtype)
        wide = (source.reshape(-1, w) @ across).view(b, k, last - first, width)
        values = mix.T @ wide
        # In-place from here: `values` becomes exponentials, probabilities, then the gradient.
        highest, best = values.max(dim=1)
        predictions[:, top:bottom] = best
        weight = labelled[:, top:bottom].to(dtype)
        target = labels[:, top:bottom].masked_fill(~labelled[:, top:bottom], 0).long()[:, None]
        target_logit = (1 - label_smoothing) * values.gather(1, target)[:, 0]
        if label_smoothing:
            target_logit += label_smoothing * values.mean(dim=1)
        values.sub_(highest[:, None]).exp_()
        total = values.sum(dim=1)
        loss += ((total.log() + highest - target_logit) * weight).sum(dtype=sum_dtype)
        if not differentiable:
            continue
        weight /= count
        values.mul_((weight / total)[:, None])
        # Each pixel has one target, so `scatter_` is deterministic. `scatter_add_` is not on a GPU.
        values.scatter_(
            1, target, values.gather(1, target) - (1 - label_smoothing) * weight[:, None]
        )
        if label_smoothing:
            values.sub_(label_smoothing / k * weight[:, None])
        tall = mix @ values
        gradient[:, :, first:last] += (tall.view(-1, width) @ across.T).view(b, k, last - first, w)
    return (loss / count).to(dtype), predictions, gradient


def _upsampling_weights(
    size_in: int, size_out: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return torch's weights [size_in, size_out] of bilinear upsampling along one dimension.

    They result from upsampling an identity matrix.
    """
    identity = torch.eye(size_in, dtype=dtype, device=device)[None, :, None]
    weights = functional.interpolate(
        identity, size=(1, size_out), mode="bilinear", align_corners=False
    )
    return weights[0, :, 0].contiguous()


def _source_rows(top: int, bottom: int, scale: float, size: int) -> tuple[int, int]:
    """Return the range of rows of the logits, end exclusive, that a strip of upsampled rows needs.

    The range may have one row more than needed at each end.
    """
    first = math.floor((top + 0.5) * scale - 0.5) - 1
    last = math.floor((bottom - 0.5) * scale - 0.5) + 2
    return max(0, min(first, size - 1)), min(size, last + 1)
