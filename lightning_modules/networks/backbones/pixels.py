"""Input of image networks: resizing and normalising stored pixels as the weights expect."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.backbones.features import BackboneError

Interpolation = Literal["bicubic", "bilinear", "nearest"]


def check_channel_values(key: str, values: Any) -> None:  # noqa: ANN401 - whatever a config holds
    """Raise `BackboneError` unless a value has three numbers, which must be above 0 for `std`.

    Args:
        key: `mean` or `std` of `model.backbone`.
        values: The value of that key.
    """
    valid = (
        isinstance(values, list | tuple)
        and len(values) == 3  # noqa: PLR2004
        and all(isinstance(v, int | float) for v in values)
    )
    if not valid or (key == "std" and min(values) <= 0):
        above = " above 0" if key == "std" else ""
        msg = (
            f"model.backbone.{key}: received {values!r}; "
            f"three numbers{above} are needed, for red, green and blue"
        )
        raise BackboneError(msg)


class PixelInput(nn.Module):
    """Resizes and normalises pixels on their device.

    It has no parameters and no entries in the state dict.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int] | None,
        interpolation: Interpolation,
    ) -> None:
        """Set the input that the network expects.

        Args:
            mean: Mean of red, green and blue, 0..1.
            std: Standard deviation of red, green and blue, 0..1.
            size: Height and width in pixels; None does not resize.
            interpolation: Interpolation of the resizing; bicubic and bilinear are antialiased, as
                in Pillow.
        """
        super().__init__()
        self.size, self.interpolation = size, interpolation
        means, stds = (
            torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std)
        )
        # Not buffers, because `module.half()` would convert them too.
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
    """Resize images as Pillow and torchvision do.

    The width is resized first, then the height; each result is rounded to integers, 0..255.

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
    if images.device.type == "cpu":  # torch's uint8 kernel takes a tenth of the time
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
    """Pixels as features, for networks without a backbone: [B, 3, H, W] -> [B, 3 * H * W]."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Flatten images in the order channel, row, column."""
        return pixels.flatten(1)
