"""Classification loss and class probabilities, in float32, or in float64 for such logits."""

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional

from run_folders.signatures.checking import check_arguments


def at_least_float32(values: Tensor) -> Tensor:
    """Return float64 values as they are, and others as float32."""
    return values if values.dtype == torch.float64 else values.float()


def num_outputs(num_classes: int, loss: nn.Module) -> int:
    """Return the number of logits of a sample.

    It is one for each class. Two classes have one logit if the loss has the attribute
    `single_logit` and it is true.
    """
    single = num_classes == 2 and getattr(loss, "single_logit", False)  # noqa: PLR2004
    return 1 if single else num_classes


class CrossEntropy(nn.Module):
    """Cross-entropy; binary cross-entropy of one logit for two classes.

    Label smoothing applies while training only.
    """

    single_logit = True

    def __init__(self, label_smoothing: Annotated[float, Interval(ge=0, le=0.999)] = 0.0) -> None:
        """Set the share of each label that is spread evenly over all classes, 0..1."""
        check_arguments(CrossEntropy, locals())
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch in nats; see `classification_loss`."""
        smoothing = self.label_smoothing if self.training else 0.0
        return classification_loss(logits, labels, smoothing)


def classification_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean binary cross-entropy for one logit, the mean cross-entropy for more.

    Args:
        logits: [B, 1], the log-odds of class 1, or [B, K].
        labels: [B] int64, 0..K-1.
        label_smoothing: Share of each label that is spread evenly over all classes (Szegedy et al.
            2016, arXiv 1512.00567).

    Returns:
        A scalar in nats.
    """
    logits = at_least_float32(logits)
    if logits.shape[1] == 1:
        targets = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits[:, 0], targets)
    return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def class_probabilities(logits: Tensor) -> Tensor:
    """Return the probabilities of all classes.

    Args:
        logits: [B, 1] or [B, K].

    Returns:
        [B, 2] or [B, K] float32, or float64 for such logits; rows sum to 1.
    """
    logits = at_least_float32(logits)
    if logits.shape[1] == 1:
        return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)
    return torch.softmax(logits, dim=1)
