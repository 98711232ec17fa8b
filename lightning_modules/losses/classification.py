"""Classification loss and class probabilities, in float32 for logits of any precision."""

import torch
from torch import Tensor
from torch.nn import functional

from run_folders.errors import UserError


class NonFiniteLossError(UserError, ArithmeticError):
    """A loss became NaN or infinite."""


def num_outputs(num_classes: int) -> int:
    """Return the number of logits of a sample: 1 for two classes, else one for each class."""
    return 1 if num_classes == 2 else num_classes  # noqa: PLR2004


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
    logits = logits.float()
    if logits.shape[1] == 1:
        targets = labels.float() * (1 - label_smoothing) + label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits[:, 0], targets)
    return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def class_probabilities(logits: Tensor) -> Tensor:
    """Return the probabilities of all classes.

    Args:
        logits: [B, 1] or [B, K].

    Returns:
        [B, 2] or [B, K] float32; rows sum to 1.
    """
    logits = logits.float()
    if logits.shape[1] == 1:
        return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)
    return torch.softmax(logits, dim=1)
