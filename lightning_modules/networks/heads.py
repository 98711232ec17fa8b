"""Heads: from features to logits. `B` samples, `T` tokens, `C` channels, `K` outputs."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lightning_modules.networks.features import Features


class LinearHead(nn.Module):
    """Pooled vector -> logits."""

    def __init__(self, width: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, outputs)

    def forward(self, features: Features) -> Tensor:
        """[B, C] -> [B, K]."""
        return cast(Tensor, self.output(self.dropout(features.values)))


class MLPHead(nn.Module):
    """Pooled vector -> logits by way of hidden layers, each with ReLU and dropout behind it."""

    def __init__(self, width: int, outputs: int, widths: Sequence[int] = (256, 256), dropout: float = 0.5) -> None:
        super().__init__()
        pairs = zip([width, *widths], widths, strict=False)
        hidden = [(nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)) for before, after in pairs]
        self.hidden = nn.Sequential(*(layer for layers in hidden for layer in layers))
        self.output = nn.Linear([width, *widths][-1], outputs)

    def forward(self, features: Features) -> Tensor:
        """[B, C] -> [B, K]."""
        return cast(Tensor, self.output(self.hidden(features.values)))


class BiGRU(nn.Module):
    """A bidirectional GRU that padding does not touch, giving the final states of both directions.

    The backward direction reads each text reversed within its own length. That equals a packed sequence and is faster:
    both directions run over the padded batch, and the state at each text's end is picked out.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.forwards = nn.GRU(width, hidden, batch_first=True)
        self.backwards = nn.GRU(width, hidden, batch_first=True)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Read the texts from both ends.

        Args:
            states: [B, T, C] token states, padding behind the tokens.
            lengths: [B] number of tokens, at least 1.

        Returns:
            [B, 2 * hidden], the forward state at the last token beside the backward state at the first.
        """
        states = states.to(next(self.parameters()).dtype)  # bfloat16 is slower here, and rounds at every step
        last = lengths.clamp(min=1) - 1
        positions = torch.arange(states.shape[1], device=states.device)
        mirrored = (last[:, None] - positions).clamp(min=0)
        reversed_states = states.gather(1, mirrored[..., None].expand_as(states))
        rows = torch.arange(len(states), device=states.device)
        ends = [gru(x)[0][rows, last] for gru, x in ((self.forwards, states), (self.backwards, reversed_states))]
        return torch.cat(ends, dim=-1)


class BiGRUHead(nn.Module):
    """Token states -> logits by way of a bidirectional GRU.

    After Alghamdi, Lin & Luo (Knowledge-Based Systems 274, 2023, doi 10.1016/j.knosys.2023.110642).
    """

    def __init__(self, width: int, hidden: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.gru = BiGRU(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden, outputs)

    def forward(self, features: Features) -> Tensor:
        """[B, T, C] token states -> [B, K]."""
        if features.lengths is None:
            msg = "BiGRUHead needs token states with their lengths; the features are pooled"
            raise ValueError(msg)
        return cast(Tensor, self.output(self.dropout(self.gru(features.values, features.lengths))))
