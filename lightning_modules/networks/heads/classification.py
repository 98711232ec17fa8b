"""Heads that turn features into logits. `B` samples, `T` tokens, `C` channels, `K` outputs.

A head is a class that takes `width` (C) and `outputs` (K), and options of its own. Its `forward`
maps `Features` to logits [B, K]. If its attribute `reads_tokens` is true, it gets the hidden states
of all tokens, else a pooled vector.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, ClassVar, cast

from annotated_types import Ge, Interval
from torch import Tensor, nn

from lightning_modules.networks.backbones.features import Features
from lightning_modules.networks.kernels.bigru import BiGRU
from run_folders.errors import UserError
from run_folders.signatures.checking import check_arguments

HeadFactory = Callable[..., nn.Module]
Dropout = Annotated[float, Interval(ge=0, le=0.999)]
Units = Annotated[int, Ge(1)]
_HIDDEN = [256, 256]


class HeadError(UserError, ValueError):
    """A head that does not fit the task."""


def reads_tokens(head: HeadFactory) -> bool:
    """Return whether a head reads the hidden states of all tokens instead of a pooled vector."""
    cls = head.func if isinstance(head, partial) else head
    return bool(getattr(cls, "reads_tokens", False))


class LinearHead(nn.Module):
    """A linear layer: pooled vector -> logits."""

    def __init__(self, width: int, outputs: int, dropout: Dropout = 0.0) -> None:
        """Build the head.

        Args:
            width: C.
            outputs: K.
            dropout: Dropout probability before the layer, 0..1.
        """
        check_arguments(LinearHead, locals())
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, outputs)

    def forward(self, features: Features) -> Tensor:
        """Compute [B, C] -> [B, K]."""
        return cast(Tensor, self.output(self.dropout(features.values)))


class MLPHead(nn.Module):
    """An MLP: pooled vector -> logits. ReLU and dropout follow each hidden layer."""

    def __init__(
        self,
        width: int,
        outputs: int,
        hidden: list[Units] | None = _HIDDEN,
        dropout: Dropout = 0.0,
    ) -> None:
        """Build the head.

        Args:
            width: C.
            outputs: K.
            hidden: Units of the hidden layers; None means 256 and 256.
            dropout: Dropout probability after each hidden layer, 0..1.
        """
        check_arguments(MLPHead, locals())
        super().__init__()
        widths = [width, *(hidden or _HIDDEN)]
        layers = [
            (nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout))
            for before, after in pairwise(widths)
        ]
        self.hidden = nn.Sequential(*(part for layer in layers for part in layer))
        self.output = nn.Linear(widths[-1], outputs)

    def forward(self, features: Features) -> Tensor:
        """Compute [B, C] -> [B, K]."""
        return cast(Tensor, self.output(self.hidden(features.values)))


class BiGRUHead(nn.Module):
    """A bidirectional GRU: hidden states of the tokens -> logits.

    From Alghamdi, Lin & Luo (Knowledge-Based Systems 274, 2023, doi 10.1016/j.knosys.2023.110642).
    """

    reads_tokens: ClassVar[bool] = True

    def __init__(
        self, width: int, outputs: int, hidden: Units = 128, dropout: Dropout = 0.0
    ) -> None:
        """Build the head.

        Args:
            width: C.
            outputs: K.
            hidden: Units of the GRU in each direction.
            dropout: Dropout probability before the output layer, 0..1.
        """
        check_arguments(BiGRUHead, locals())
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
