"""A head with one hidden layer and a residual connection."""

from typing import Annotated

from annotated_types import Interval
from torch import Tensor, nn

from lightning_modules.networks.backbones.features import Features


class TwoLayerHead(nn.Module):
    """Pooled vector -> logits. The engine passes `width` and `outputs`; the rest are options."""

    def __init__(
        self,
        width: int,
        outputs: int,
        dropout: Annotated[float, Interval(ge=0, le=0.999)] = 0.1,
    ) -> None:
        """Build the head.

        Args:
            width: Number of features C.
            outputs: Number of logits K.
            dropout: Dropout probability before the output layer, 0..1.
        """
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, outputs)

    def forward(self, features: Features) -> Tensor:
        """Compute [B, C] -> [B, K]."""
        values = features.values
        hidden = values + nn.functional.gelu(self.hidden(values))
        logits: Tensor = self.output(self.dropout(hidden))
        return logits
