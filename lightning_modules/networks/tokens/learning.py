"""TokenLearner: a few learned tokens in place of all tokens of an image.

Ryoo et al., TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?, NeurIPS 2021, arXiv
2106.11297.

Shapes: `B` images, `N` tokens of a grid, `S` learned tokens, `C` channels.
"""

import math
from typing import cast

from torch import Tensor, nn

_EPSILON = 1e-6
_BOTTLENECK = 64


class TokenLearner(nn.Module):
    """Learned tokens of v1.1: weighted means of the tokens.

    The weights of each learned token are a softmax over all positions of an MLP of the normalised
    tokens.
    """

    def __init__(self, width: int, number: int, dropout: float = 0.0) -> None:
        """Build the module.

        Args:
            width: C.
            number: S.
            dropout: Dropout probability within the MLP.
        """
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = _mlp(width, number, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, N, C] -> [B, S, C]."""
        weights = self.mlp(self.norm(x)).softmax(dim=1)
        return cast(Tensor, weights.transpose(1, 2) @ x)


class ConvTokenLearner(nn.Module):
    """Learned tokens of v1.0, that of the paper's runs: gated sums or means of the tokens.

    The gates are the sigmoid of four 3x3 convolutions of the normalised tokens.
    """

    def __init__(
        self, width: int, number: int, grid: tuple[int, int], *, mean: bool = False
    ) -> None:
        """Build the module.

        Args:
            width: C.
            number: S.
            grid: Height and width of the grid of tokens.
            mean: Whether to divide the sums by N.
        """
        super().__init__()
        self.grid, self.mean = grid, mean
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        layers: list[nn.Module] = []
        for width_in in (width, number, number, number):
            layers += [nn.Conv2d(width_in, number, 3, padding=1, bias=False), nn.GELU()]
        self.convolutions = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, N, C] -> [B, S, C].

        Raises:
            ValueError: If N is another number than that of the grid.
        """
        if x.shape[1] != math.prod(self.grid):
            height, width = self.grid
            msg = f"received {x.shape[1]} tokens for a grid of {height} x {width}; choose v1.1"
            raise ValueError(msg)
        grid = self.norm(x).transpose(1, 2).unflatten(2, self.grid)
        gates = self.convolutions(grid).flatten(2).sigmoid()
        return cast(Tensor, gates @ x / (x.shape[1] if self.mean else 1))


class TokenFuser(nn.Module):
    """Adds learned tokens back to all tokens of the image.

    At the start it returns the tokens of the image unchanged.
    """

    def __init__(self, width: int, number: int, dropout: float = 0.0) -> None:
        """Build the module.

        Args:
            width: C.
            number: S.
            dropout: Dropout probability within the MLP.
        """
        super().__init__()
        self.norm_learned = nn.LayerNorm(width, eps=_EPSILON)
        self.mix = nn.Linear(number, number)
        self.norm_mixed = nn.LayerNorm(width, eps=_EPSILON)
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = _mlp(width, number, dropout)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, learned: Tensor, x: Tensor) -> Tensor:
        """Compute [B, S, C] and [B, N, C] -> [B, N, C]."""
        mixed = self.mix(self.norm_learned(learned).transpose(1, 2)).transpose(1, 2)
        gates = self.mlp(self.norm(x)).sigmoid()
        return cast(Tensor, gates @ self.norm_mixed(mixed) + x)


def _mlp(width: int, number: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, _BOTTLENECK),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(_BOTTLENECK, number),
        nn.Dropout(dropout),
    )
