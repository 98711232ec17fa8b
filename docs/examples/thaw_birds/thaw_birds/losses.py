"""Focal loss (Lin et al. 2017, arXiv 1708.02002)."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn


class FocalLoss(nn.Module):
    """Cross-entropy whose samples are weighted by (1 - p) ** gamma, p the label's probability.

    It does not declare `single_logit`, so it gets K logits, also for two classes.
    """

    def __init__(self, gamma: Annotated[float, Ge(0)] = 2.0) -> None:
        """Set the exponent; 0 is cross-entropy."""
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar in nats.

        Args:
            logits: [B, K] float32.
            labels: [B] int64, 0..K-1.
        """
        log_probability = logits.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
        weight = (1 - log_probability.exp()) ** self.gamma
        return -(weight * log_probability).mean()
