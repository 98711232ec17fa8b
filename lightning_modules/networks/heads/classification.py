"""Heads that turn features into logits. `B` samples, `T` tokens, `C` channels, `K` outputs."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from lightning_modules.networks.backbones.features import Features
from lightning_modules.networks.kernels.bigru import BiGRU


class LinearHead(nn.Module):
    """A linear layer: pooled vector -> logits."""

    def __init__(self, width: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, outputs)

    def forward(self, features: Features) -> Tensor:
        """Compute [B, C] -> [B, K]."""
        return cast(Tensor, self.output(self.dropout(features.values)))


class MLPHead(nn.Module):
    """An MLP: pooled vector -> logits. ReLU and dropout follow each hidden layer."""

    def __init__(
        self, width: int, outputs: int, widths: Sequence[int] = (256, 256), dropout: float = 0.5
    ) -> None:
        super().__init__()
        pairs = zip([width, *widths], widths, strict=False)
        hidden = [
            (nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)) for before, after in pairs
        ]
        self.hidden = nn.Sequential(*(layer for layers in hidden for layer in layers))
        self.output = nn.Linear([width, *widths][-1], outputs)

    def forward(self, features: Features) -> Tensor:
        """Compute [B, C] -> [B, K]."""
        return cast(Tensor, self.output(self.hidden(features.values)))


class BiGRUHead(nn.Module):
    """A bidirectional GRU: hidden states of the tokens -> logits.

    From Alghamdi, Lin & Luo (Knowledge-Based Systems 274, 2023, doi 10.1016/j.knosys.2023.110642).
    """

    def __init__(self, width: int, hidden: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.gru = BiGRU(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden, outputs)

    def forward(self, features: Features) -> Tensor:
        """Compute logits from hidden states: [B, T, C] -> [B, K].

        Raises:
            ValueError: If the features are pooled.
        """
        if features.lengths is None:
            msg = "BiGRUHead needs token states with their lengths; received pooled features"
            raise ValueError(msg)
        return cast(Tensor, self.output(self.dropout(self.gru(features.values, features.lengths))))
