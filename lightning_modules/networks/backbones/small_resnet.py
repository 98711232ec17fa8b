"""A small residual network for images of about 32 x 32 pixels, fast enough to train from nothing on a CPU."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

# The running statistics follow within a few steps: a run has a few hundred.
_MOMENTUM = 0.3


def _unit(width_in: int, width: int, *, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(width_in, width, 3, padding=1, bias=False)]
    if pool:
        layers.append(
            nn.MaxPool2d(2)
        )  # before norm and activation, which then have a quarter of the work
    return nn.Sequential(*layers, nn.BatchNorm2d(width, momentum=_MOMENTUM), nn.GELU())


def opponent_filters() -> Tensor:
    """Twelve orthogonal filters over 2 x 2 pixels, and their negatives: what takes apart neighbouring pixels and colours.

    Brightness, red against blue and green against both, each as a mean, a step across, a step down
    and a saddle. These are close to the principal components of natural images, so that the layers
    behind begin with inputs that hardly correlate.

    Returns:
        [24, 3, 2, 2] float32 of unit norm.
    """
    steps = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    filters = torch.einsum("ac,bi,dj->abdcij", colours, steps, steps).reshape(12, 3, 2, 2)
    filters = filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return torch.cat([filters, -filters])


class Stage(nn.Module):
    """Halves height and width, then adds what `depth` more convolutions find (He et al. 2016, arXiv 1512.03385)."""

    def __init__(self, width_in: int, width: int, depth: int) -> None:
        super().__init__()
        self.down = _unit(width_in, width, pool=True)
        self.residual = nn.Sequential(*(_unit(width, width) for _ in range(depth)))
        with (
            torch.no_grad()
        ):  # begins by handing on what it gets (Zagoruyko & Komodakis 2017, arXiv 1706.00388)
            nn.init.dirac_(self.down[0].weight[:width_in])  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, H / 2, W / 2]."""
        x = self.down(x)
        return cast(Tensor, x + self.residual(x))


class SmallResNet(nn.Module):
    """A stem, stages that halve the picture, and the largest value of each channel.

    After the networks that win CIFAR-10 speed contests (Jordan 2024, arXiv 2404.00498): few layers,
    GELU, BatchNorm behind the pooling, a first layer that decorrelates.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256), depth: int = 2) -> None:
        """Build the network.

        Args:
            widths: Channels of each stage; the last is the width of the features.
            depth: Convolutions in a stage's residual branch.
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
        """The order of the layers, in timm's terms."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C]."""
        return cast(Tensor, self.stages(self.stem(x)).amax(dim=(2, 3)))
