"""What stands before every image network: from stored pixels to the input that its weights expect."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.backbones.features import BackboneError

Interpolation = Literal["bicubic", "bilinear", "nearest"]


def check_colours(key: str, values: Any) -> None:  # noqa: ANN401 - whatever a config holds
    """Raise `BackboneError` where `model.backbone.mean` or `.std` is no three numbers, above 0 for `std`."""
    right = (
        isinstance(values, list | tuple)
        and len(values) == 3  # noqa: PLR2004
        and all(isinstance(v, int | float) for v in values)
    )
    if not right or (key == "std" and min(values) <= 0):
        msg = f"model.backbone.{key}: received {values!r}; three numbers are needed, of red, green and blue"
        raise BackboneError(msg)


class PixelInput(nn.Module):
    """Resizes and normalises, on whatever device the pixels are. It has no parameters and nothing in the state dict."""

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int] | None,
        interpolation: Interpolation,
    ) -> None:
        """State what the network expects.

        Args:
            mean: Of red, green and blue, 0..1.
            std: Likewise.
            size: Height and width in pixels; None takes images as they come.
            interpolation: Of the resize; bicubic and bilinear are antialiased, as Pillow does it.
        """
        super().__init__()
        self.size, self.interpolation = size, interpolation
        means, stds = (
            torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std)
        )
        # No buffers: a module that is brought to half precision would take them along.
        self.scale, self.shift = 1 / (255 * stds), means / stds

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Prepare a batch.

        Args:
            pixel_values: [B, 3, H, W] uint8.

        Returns:
            [B, 3, h, w] float32.
        """
        resized = (
            pixel_values
            if self.size is None
            else resize(pixel_values, self.size, self.interpolation)
        )
        self.scale, self.shift = self.scale.to(resized.device), self.shift.to(resized.device)
        return resized.contiguous().float().mul_(self.scale).sub_(self.shift)


def resize(images: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Resize as Pillow and torchvision do: along the width, then along the height, each result in whole numbers of 0..255.

    Args:
        images: [B, 3, H, W] uint8.
        size: Height and width, h and w.
        interpolation: Bicubic and bilinear are antialiased.

    Returns:
        [B, 3, h, w] uint8.
    """
    if images.shape[-2:] == size:
        return images
    if interpolation == "nearest":
        return functional.interpolate(images.float(), size, mode="nearest-exact").to(torch.uint8)
    if images.device.type == "cpu":  # torch's kernel for bytes takes a tenth of the time
        stored = images.contiguous(memory_format=torch.channels_last)
        return functional.interpolate(stored, size, mode=interpolation, antialias=True)
    values = images.float()
    for step in ((images.shape[-2], size[1]), size):
        values = (
            functional.interpolate(values, step, mode=interpolation, antialias=True)
            .clamp_(0, 255)
            .round_()
        )
    return values.to(torch.uint8)


class FlatPixels(nn.Module):
    """[B, 3, H, W] -> [B, 3 * H * W]: the features of a network that has no backbone."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Flatten, channel by channel and row by row."""
        return pixels.flatten(1)
