"""Cross-entropy of logits that are upsampled to the size of the labels, some rows at a time.

The plain formula, `cross_entropy(interpolate(logits, labels.shape[-2:], mode="bilinear"), labels)`,
holds [B, K, H, W] three times over: upsampled, as log-probabilities, and as their gradient. Here a
strip of rows is upsampled, turned into its part of the loss, of the predictions and of the gradient
at the size of the logits, and forgotten.

`B` images, `K` classes, `h` x `w` the size of the logits, `H` x `W` that of the labels.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from datamodules.batches import IGNORE_INDEX

# Numbers of a strip: on a CPU few enough for its caches; elsewhere a share of the whole, for few
# and large kernels.
_CPU_STRIP = 2**21
_SHARE = 32


def upsampled_cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over the labelled pixels, and the most probable class of every pixel.

    Upsampling is bilinear between pixel centres (`align_corners=False`). All is computed in
    float32, or in float64 for logits of that kind, whatever autocast says; only where torch is told
    to multiply in TF32, upsampling is no more exact than that.

    Args:
        logits: [B, K, h, w] of any floating kind.
        labels: [B, H, W] uint8, 0..K-1, or 255 where nothing is labelled.
        label_smoothing: Share of each label that is spread evenly over all classes (Szegedy et al.
            2016, arXiv 1512.00567).

    Returns:
        The loss in nats, a scalar: 0 where no pixel is labelled, and without a gradient there. And
        the predictions, [B, H, W] uint8, of pixels without a label too.
    """
    differentiable = torch.is_grad_enabled() and logits.requires_grad
    loss, predictions = _Strips.apply(logits, labels, label_smoothing, differentiable)
    return loss, predictions


class _Strips(torch.autograd.Function):
    """The gradient of the loss is summed with the loss and kept."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        logits: Tensor,
        labels: Tensor,
        label_smoothing: float,
        differentiable: bool,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(logits.device.type, enabled=False):
            loss, predictions, gradient = _summed(
                logits, labels, label_smoothing, differentiable=differentiable
            )
        ctx.kind = logits.dtype
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(predictions)
        ctx.set_materialize_grads(value=False)
        return loss, predictions

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        of_loss: Tensor | None,
        _: None,
    ) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return None if of_loss is None else (gradient * of_loss).to(ctx.kind), None, None, None


def _summed(
    logits: Tensor, labels: Tensor, label_smoothing: float, *, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, predictions, and the gradient of the loss, which is empty where nothing asks for it."""
    kind = torch.float64 if logits.dtype == torch.float64 else torch.float32
    (b, k, h, w), (height, width) = logits.shape, labels.shape[-2:]
    down, across = (_weights(n, m, kind, logits.device) for n, m in ((h, height), (w, width)))
    labelled = labels != IGNORE_INDEX
    count = labelled.sum().clamp(min=1).to(kind)
    # The sum of many pixels, which should not depend on who adds them in which order; MPS has no
    # float64.
    exact = torch.float32 if logits.device.type == "mps" else torch.float64
    loss = torch.zeros((), dtype=exact, device=logits.device)
    predictions = torch.empty_like(labels, memory_format=torch.contiguous_format)
    gradient = torch.zeros(
        (b, k, h, w) if differentiable else (0,), dtype=kind, device=logits.device
    )
    strip = _CPU_STRIP if logits.device.type == "cpu" else b * k * height * width // _SHARE
    rows = min(height, max(1, strip // (b * k * width)))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        first, last = _read_rows(top, bottom, h / height, h)
        mix = down[first:last, top:bottom]
        source = logits[:, :, first:last].to(kind)
        wide = (source.reshape(-1, w) @ across).view(b, k, last - first, width)
        values = mix.T @ wide
        # From here on in place: values become exponentials, then probabilities, then the gradient.
        highest, best = values.max(dim=1)
        predictions[:, top:bottom] = best
        weight = labelled[:, top:bottom].to(kind)
        target = labels[:, top:bottom].masked_fill(~labelled[:, top:bottom], 0).long()[:, None]
        of_target = (1 - label_smoothing) * values.gather(1, target)[:, 0]
        if label_smoothing:
            of_target += label_smoothing * values.mean(dim=1)
        values.sub_(highest[:, None]).exp_()
        total = values.sum(dim=1)
        loss += ((total.log() + highest - of_target) * weight).sum(dtype=exact)
        if not differentiable:
            continue
        weight /= count
        values.mul_((weight / total)[:, None])
        # Each pixel has one target, so this is the same on every run, which a sum over targets
        # would not be on a GPU.
        values.scatter_(
            1, target, values.gather(1, target) - (1 - label_smoothing) * weight[:, None]
        )
        if label_smoothing:
            values.sub_(label_smoothing / k * weight[:, None])
        tall = mix @ values
        gradient[:, :, first:last] += (tall.view(-1, width) @ across.T).view(b, k, last - first, w)
    return (loss / count).to(kind), predictions, gradient


def _weights(size: int, wanted: int, kind: torch.dtype, device: torch.device) -> Tensor:
    """[size, wanted] share of each position in each upsampled one: torch's own, read off an identity matrix."""
    identity = torch.eye(size, dtype=kind, device=device)[None, :, None]
    return functional.interpolate(identity, size=(1, wanted), mode="bilinear", align_corners=False)[
        0, :, 0
    ].contiguous()


def _read_rows(top: int, bottom: int, scale: float, size: int) -> tuple[int, int]:
    """First row of the logits, and the one behind the last, that a strip of upsampled rows reads; rather one too many."""
    first = math.floor((top + 0.5) * scale - 0.5) - 1
    last = math.floor((bottom - 0.5) * scale - 0.5) + 2
    return max(0, min(first, size - 1)), min(size, last + 1)
