"""Segmentation losses. They read logits at their own size, so upsampled logits are never stored.

Shapes: `B` images, `K` classes, `h` x `w` the size of the logits, `H` x `W` that of the labels.
"""

from abc import abstractmethod
from typing import Annotated

from annotated_types import Interval
from torch import Tensor, nn

from lightning_modules.losses.upsampled_cross_entropy import (
    upsampled_cross_entropy,
    upsampled_predictions,
)
from run_folders.signatures.checking import check_arguments


class SegmentationLoss(nn.Module):
    """Base class of the losses of a segmentation task."""

    @abstractmethod
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss over the labelled pixels.

        Args:
            logits: [B, K, h, w] of any floating dtype.
            labels: [B, H, W] uint8, 0..K-1, or 255 for unlabelled pixels.

        Returns:
            A scalar; 0 without any labelled pixel.
        """

    def with_predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the most probable class of each pixel, [B, H, W] uint8."""
        return self(logits, labels), upsampled_predictions(logits, labels)


class UpsampledCrossEntropy(SegmentationLoss):
    """Cross-entropy at the size of the labels; see `upsampled_cross_entropy`.

    Label smoothing applies while training only.
    """

    def __init__(self, label_smoothing: Annotated[float, Interval(ge=0, le=0.999)] = 0.0) -> None:
        """Set the share of each label that is spread evenly over all classes, 0..1."""
        check_arguments(UpsampledCrossEntropy, locals())
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy over the labelled pixels in nats, a scalar."""
        return self.with_predictions(logits, labels)[0]

    def with_predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the predictions from one pass over the upsampled logits."""
        smoothing = self.label_smoothing if self.training else 0.0
        return upsampled_cross_entropy(logits, labels, smoothing)
