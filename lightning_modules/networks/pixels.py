"""What stands before every image network: from stored pixels to the input that its weights expect."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Interpolation = Literal["bicubic", "bilinear", "nearest"]


class PixelInput(nn.Module):
    """Resizes and normalises, on whatever device the pixels are. It has no parameters and nothing in the state dict."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], size: tuple[int, int] | None, interpolation: Interpolation
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
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Prepare a batch.

        Args:
            pixel_values: [B, 3, H, W] uint8.

        Returns:
            [B, 3, h, w] float32, in channels-last memory.
        """
        pixels = pixel_values.float().contiguous(memory_format=torch.channels_last)
        if self.size is not None and pixels.shape[-2:] != self.size:
            smooth = self.interpolation != "nearest"
            corners = False if smooth else None
            pixels = functional.interpolate(
                pixels, self.size, mode=self.interpolation, align_corners=corners, antialias=smooth
            ).clamp(0, 255)
        return (pixels / 255 - self.mean) / self.std


class FlatPixels(nn.Module):
    """[B, 3, H, W] -> [B, 3 * H * W]: the features of a network that has no backbone."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Flatten, channel by channel and row by row."""
        return pixels.flatten(1)
