"""A network for images of about 32 x 32 pixels whose first layer whitens them: accurate after few passes over the data."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.mosaic_convolution import Convolution
from lightning_modules.networks.small_resnet import opponent_filters

# The running statistics are those of some forty batches. A run has a few hundred steps, each of several batches.
_MOMENTUM = 0.05
# On each eigenvalue: what hardly varies is hardly magnified.
_RIDGE = 5e-4
# On the features, so that logits begin small.
_SCALE = 1 / 9


class BiasNorm(nn.BatchNorm2d):
    """BatchNorm with a bias and without a gain, which GELU and the next layer's norm make up for."""

    def __init__(self, width: int) -> None:
        super().__init__(width, momentum=_MOMENTUM, affine=False)
        self.bias = nn.Parameter(torch.zeros(width))


class Whitening(nn.Module):
    """Projects each 2 x 2 patch on the principal components of all patches, scaled to unit variance, and their negatives.

    The filters are statistics of the data, like the mean and variance of a BatchNorm: buffers, which never train.
    """

    filters: Tensor

    def __init__(self) -> None:
        """Begin with filters that are near the principal components of natural images."""
        super().__init__()
        self.register_buffer("filters", opponent_filters())
        self.bias = nn.Parameter(torch.zeros(len(self.filters)))

    @torch.no_grad()
    def fit(self, pixels: Tensor) -> None:
        """Take the filters from images.

        Args:
            pixels: [B, 3, H, W] float32, normalised.
        """
        filters = whitening_filters(pixels)
        self.filters.copy_(torch.cat([filters, -filters]))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 24, H - 1, W - 1]."""
        return functional.conv2d(x, self.filters, self.bias)


def whitening_filters(pixels: Tensor, side: int = 2) -> Tensor:
    """Filters whose outputs are uncorrelated and of unit variance on the patches of some images, the strongest last.

    Args:
        pixels: [B, C, H, W] float32.
        side: Of a patch, in pixels.

    Returns:
        [C * side * side, C, side, side] float32.
    """
    channels = pixels.shape[1]
    patches = pixels.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, channels * side * side)
    values, vectors = torch.linalg.eigh(torch.cov(patches.double().t()))
    filters = vectors / torch.sqrt(values + _RIDGE)
    return cast(Tensor, filters.t().reshape(-1, channels, side, side).float())


class Stage(nn.Module):
    """Two convolutions, the first of which halves height and width."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv1 = Convolution(width_in, width)
        self.norm1 = BiasNorm(width)
        self.conv2 = Convolution(width, width)
        self.norm2 = BiasNorm(width)
        with torch.no_grad():  # begins by handing on what it gets (Zagoruyko & Komodakis 2017, arXiv 1706.00388)
            for convolution in (self.conv1, self.conv2):
                nn.init.dirac_(convolution.weight[: convolution.in_channels])

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, H / 2, W / 2]."""
        # Pooled before norm and activation, which then have a quarter of the work.
        x = functional.gelu(self.norm1(functional.max_pool2d(self.conv1(x), 2)))
        return functional.gelu(self.norm2(self.conv2(x)))


class WhitenedNet(nn.Module):
    """Whitening, stages that halve the picture, and the largest value of each channel.

    The network of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024, arXiv 2404.00498).
    """

    def __init__(self, widths: Sequence[int] = (64, 256, 256)) -> None:
        """Build the network.

        Args:
            widths: Channels of each stage; the last is the width of the features.
        """
        super().__init__()
        self.whitening = Whitening()
        pairs = zip([len(self.whitening.filters), *widths], widths, strict=False)
        self.stages = nn.Sequential(*(Stage(width_in, width) for width_in, width in pairs))

    def fit_first_layer(self, pixels: Tensor) -> None:
        """Have the first layer whiten images like these, [B, 3, H, W] float32, normalised; before any training."""
        self.whitening.fit(pixels)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 - timm's signature
        """The order of the layers, in timm's terms."""
        return {"stem": r"^whitening", "blocks": r"^stages\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C]."""
        return cast(Tensor, self.stages(functional.gelu(self.whitening(x))).amax(dim=(2, 3))) * _SCALE
