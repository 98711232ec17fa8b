"""A small residual network for images of about 32 x 32 pixels, fast enough to train from nothing on a CPU."""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

# The running statistics follow within a few steps: a run has a few hundred.
_MOMENTUM = 0.3


def _unit(width_in: int, width: int, *, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(width_in, width, 3, padding=1, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(2))  # before norm and activation, which then have a quarter of the work
    return nn.Sequential(*layers, nn.BatchNorm2d(width, momentum=_MOMENTUM), nn.GELU())


class Stage(nn.Module):
    """Halves height and width, then adds what `depth` more convolutions find (He et al. 2016, arXiv 1512.03385)."""

    def __init__(self, width_in: int, width: int, depth: int) -> None:
        super().__init__()
        self.down = _unit(width_in, width, pool=True)
        self.residual = nn.Sequential(*(_unit(width, width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, H / 2, W / 2]."""
        x = self.down(x)
        return cast(Tensor, x + self.residual(x))


class SmallResNet(nn.Module):
    """A stem at full size, three stages, and the largest value of each channel.

    After the networks that win CIFAR-10 speed contests: few layers, GELU, BatchNorm behind the pooling.
    """

    def __init__(self, stem: int = 24, widths: Sequence[int] = (64, 128, 256), depth: int = 2) -> None:
        """Build the network.

        Args:
            stem: Channels of the first convolution.
            widths: Channels of each stage; the last is the width of the features.
            depth: Convolutions in a stage's residual branch.
        """
        super().__init__()
        self.stem = _unit(3, stem)
        pairs = zip([stem, *widths], widths, strict=False)
        self.stages = nn.Sequential(*(Stage(width_in, width, depth) for width_in, width in pairs))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 - timm's signature
        """The order of the layers, in timm's terms."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C]."""
        return cast(Tensor, self.stages(self.stem(x)).amax(dim=(2, 3)))
