"""Joint changes of an image and its mask, each pair with its own draw.

What a pair gets depends on (seed, epoch, its row) and on nothing else: not on the worker that reads
it, the number of processes or whether the run was resumed.
"""

from typing import Annotated, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Interval
from PIL import Image
from torchvision.transforms.v2 import functional

from datamodules.batches import IGNORE_INDEX

Pixels = npt.NDArray[np.uint8]
Window = tuple[int, int, int, int]  # top, left, height, width

_STREAM = 2  # apart from the streams of the order and of single images with the same seed and epoch
_TRIES = 10  # windows, for one that no class fills
# Of photometric changes (Liu et al. 2016, arXiv 1512.02325): each is made in half of the images.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 32 / 255, 0.5, 0.5, 0.1


class SegmentationAugmentation(TypedDict):
    """Which changes of training pairs are made.

    Attributes:
        scale: Lowest and highest factor on the size; the shorter side of the image is brought to
            the size times a factor between them, and a window of the size is cut out, padded where
            the image ends. None stretches the whole image to the size.
        largest_share: Windows in which one class has more than this share of the labelled pixels
            are drawn anew, up to ten times, 0..1; 1 takes the first.
        flip: Left and right change places in half of the pairs.
        photometric: Brightness, contrast, saturation and hue of the image are changed.
    """

    scale: list[Annotated[float, Ge(0.01)]] | None
    largest_share: Annotated[float, Interval(ge=0.01, le=1)]
    flip: bool
    photometric: bool


def stretched(image: Pixels, labels: Pixels, size: int) -> tuple[Pixels, Pixels]:
    """Bring a pair to a square, whatever its proportions.

    Args:
        image: [H, W, 3].
        labels: [H, W].
        size: Side in pixels.

    Returns:
        [size, size, 3], bicubic and antialiased, and [size, size], nearest.
    """
    return resized_image(image, size), _part(
        labels, (size, size), (0, 0, size, size), Image.Resampling.NEAREST
    )


def resized_image(image: Pixels, size: int) -> Pixels:
    """Bring an image [H, W, 3] to a square [size, size, 3], bicubic and antialiased."""
    return _part(image, (size, size), (0, 0, size, size), Image.Resampling.BICUBIC)


def _part(
    array: Pixels, scaled: tuple[int, int], window: Window, resampling: Image.Resampling
) -> Pixels:
    """A window of an array that is scaled to a height and width; only what the window shows is computed."""
    height, width = array.shape[:2]
    top, left, tall, wide = window
    if scaled == (height, width):
        return array[top : top + tall, left : left + wide]
    down, across = height / scaled[0], width / scaled[1]
    box = (
        left * across,
        top * down,
        min(width, (left + wide) * across),
        min(height, (top + tall) * down),
    )
    return np.asarray(Image.fromarray(array).resize((wide, tall), resampling, box=box))


class SegmentationAugmenter:
    """Applies an augmentation."""

    def __init__(self, settings: SegmentationAugmentation, size: int, seed: int) -> None:
        """State what is done.

        Args:
            settings: The changes.
            size: Side of the result in pixels.
            seed: The run's.
        """
        self.settings, self.size, self.seed = settings, size, seed

    def __call__(
        self, image: Pixels, labels: Pixels, epoch: int, row: int
    ) -> tuple[Pixels, Pixels]:
        """Change a pair.

        Args:
            image: [H, W, 3].
            labels: [H, W], 255 where nothing is labelled.
            epoch: From 0.
            row: The pair's.

        Returns:
            [size, size, 3] and [size, size].
        """
        rng = np.random.default_rng([self.seed, epoch, row, _STREAM])
        if self.settings["scale"] is None:
            image, labels = stretched(image, labels, self.size)
        else:
            low, high = self.settings["scale"]
            image, labels = self._window(image, labels, rng.uniform(low, high), rng)
        if self.settings["flip"] and rng.random() < 0.5:  # noqa: PLR2004 - half of the pairs
            image, labels = image[:, ::-1], labels[:, ::-1]
        if self.settings["photometric"]:
            image = photometric(image, rng)
        return image, labels

    def _window(
        self, image: Pixels, labels: Pixels, factor: float, rng: np.random.Generator
    ) -> tuple[Pixels, Pixels]:
        """A window of the scaled pair, padded at the right and below where the pair is smaller."""
        shorter = min(labels.shape)
        scaled = tuple(max(1, round(side * self.size * factor / shorter)) for side in labels.shape)
        tall, wide = (min(self.size, side) for side in scaled)
        for _ in range(_TRIES):
            top, left = (
                int(rng.integers(0, side - shown + 1))
                for side, shown in zip(scaled, (tall, wide), strict=True)
            )
            window = (top, left, tall, wide)
            part = _part(labels, (scaled[0], scaled[1]), window, Image.Resampling.NEAREST)
            if largest_share(part) <= self.settings["largest_share"]:
                break
        shown = _part(image, (scaled[0], scaled[1]), window, Image.Resampling.BICUBIC)
        if (tall, wide) == (self.size, self.size):
            return shown, part
        canvas = np.zeros((self.size, self.size, 3), np.uint8)
        empty = np.full((self.size, self.size), IGNORE_INDEX, np.uint8)
        canvas[:tall, :wide], empty[:tall, :wide] = shown, part
        return canvas, empty


def largest_share(labels: Pixels) -> float:
    """Share of the labelled pixels that the most frequent class has; 0 where nothing is labelled."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    return float(counts.max() / max(1, counts.sum()))


def photometric(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Change brightness, contrast, saturation and hue, each with probability one half.

    Args:
        image: [H, W, 3].
        rng: Where the draws come from; the same number of them whatever is changed.

    Returns:
        [H, W, 3].
    """
    made = rng.random(4) < 0.5  # noqa: PLR2004
    ranges = (
        (1 - _BRIGHTNESS, 1 + _BRIGHTNESS),
        (1 - _CONTRAST, 1 + _CONTRAST),
        (1 - _SATURATION, 1 + _SATURATION),
        (-_HUE, _HUE),
    )
    draws = [rng.uniform(low, high) for low, high in ranges]
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    for wanted, change, draw in zip(made, changes, draws, strict=True):
        if wanted:
            pixels = change(pixels, draw)
    return pixels.permute(1, 2, 0).numpy()
