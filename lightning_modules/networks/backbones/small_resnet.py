"""A small residual network for images of about 32 x 32 pixels.

It is fast enough to train from scratch on a CPU.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

# Higher than torch's 0.1, so that the running statistics converge in runs of a few hundred steps.
_MOMENTUM = 0.3


def _unit(width_in: int, width: int, *, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(width_in, width, 3, padding=1, bias=False)]
    if pool:
        # Before norm and activation, which then process a quarter of the values.
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.BatchNorm2d(width, momentum=_MOMENTUM), nn.GELU())


def opponent_filters() -> Tensor:
    """Return twelve orthogonal filters over 2 x 2 pixels, and their negatives.

    There are three colour channels: brightness, red minus blue, and red and blue minus green. Each
    has four spatial patterns: mean, horizontal step, vertical step and saddle. The filters
    approximate the principal components of natural images, so the next layers receive nearly
    uncorrelated inputs.

    Returns:
        [24, 3, 2, 2] float32; each filter has unit norm.
    """
    steps = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    filters = torch.einsum("ac,bi,dj->abdcij", colours, steps, steps).reshape(12, 3, 2, 2)
    filters = filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return torch.cat([filters, -filters])


class Stage(nn.Module):
    """A stage that halves height and width, with a residual branch of `depth` convolutions.

    Residual learning: He et al. 2016, arXiv 1512.03385.
    """

    def __init__(self, width_in: int, width: int, depth: int) -> None:
        super().__init__()
        self.down = _unit(width_in, width, pool=True)
        self.residual = nn.Sequential(*(_unit(width, width) for _ in range(depth)))
        # Identity initialisation (Zagoruyko & Komodakis 2017, arXiv 1706.00388).
        with torch.no_grad():
            nn.init.dirac_(self.down[0].weight[:width_in])  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, C, H, W] -> [B, width, H / 2, W / 2]."""
        x = self.down(x)
        return cast(Tensor, x + self.residual(x))


class SmallResNet(nn.Module):
    """A stem, stages that halve height and width, and global max pooling.

    It follows the networks of CIFAR-10 speed records (Jordan 2024, arXiv 2404.00498). It has few
    layers, GELU, and BatchNorm after the pooling. The first layer decorrelates its inputs.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256), depth: int = 2) -> None:
        """Build the network.

        Args:
            widths: Channels of each stage; the last is the number of features.
            depth: Number of convolutions in each stage's residual branch.
        """
        super().__init__()
        filters = opponent_filters()
        convolution = nn.Conv2d(3, len(filters), 2, bias=False)
        with torch.no_grad():
            convolution.weight.copy_(filters)
        self.stem = nn.Sequential(
            convolution, nn.BatchNorm2d(len(filters), momentum=_MOMENTUM), nn.GELU()
        )
        pairs = zip([len(filters), *widths], widths, strict=False)
        self.stages = nn.Sequential(*(Stage(width_in, width, depth) for width_in, width in pairs))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 - timm's signature
        """Return timm's description of the layer groups, in order."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, 3, H, W] -> [B, C]."""
        return cast(Tensor, self.stages(self.stem(x)).amax(dim=(2, 3)))
