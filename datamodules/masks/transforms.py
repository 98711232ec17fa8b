"""Random augmentation of an image together with its mask.

Each pair has its own random draws, which depend only on (seed, epoch, row of the pair). They do not
depend on the worker, the number of processes or whether the run was resumed.
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

_STREAM = 2  # makes the draws independent of other streams with the same seed and epoch
_TRIES = 10  # number of windows to try until one is not dominated by a class
# Largest photometric changes (Liu et al. 2016, arXiv 1512.02325); each changes half of the images.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 32 / 255, 0.5, 0.5, 0.1


class SegmentationAugmentation(TypedDict, total=False):
    """Augmentation settings of training images and their masks.

    Attributes:
        scale: Lowest and highest factor. The shorter side of the image becomes `size` times a
            random factor between them. A random window of `size` is then cut out, and padded where
            the image is smaller. None resizes the whole image to `size`, ignoring its aspect ratio.
        largest_share: Largest share of one class among the labelled pixels of a window, 0..1. Other
            windows are drawn again; the tenth is used in any case. 1 always uses the first window.
        flip: Whether to mirror half of the pairs horizontally.
        photometric: Whether to change brightness, contrast, saturation and hue of the image.

    A change that is left out is not made.
    """

    scale: list[Annotated[float, Ge(0.01)]] | None
    largest_share: Annotated[float, Interval(ge=0.01, le=1)]
    flip: bool
    photometric: bool


NO_AUGMENTATION = SegmentationAugmentation(
    scale=None, largest_share=1.0, flip=False, photometric=False
)


def stretched(image: Pixels, labels: Pixels, size: int) -> tuple[Pixels, Pixels]:
    """Resize an image and its mask to a square, ignoring the aspect ratio.

    Args:
        image: [H, W, 3].
        labels: [H, W].
        size: Side in pixels.

    Returns:
        Image [size, size, 3], bicubic and antialiased; mask [size, size], nearest neighbour.
    """
    return resized_image(image, size), _part(
        labels, (size, size), (0, 0, size, size), Image.Resampling.NEAREST
    )


def resized_image(image: Pixels, size: int) -> Pixels:
    """Resize an image [H, W, 3] to a square [size, size, 3], bicubic and antialiased."""
    return _part(image, (size, size), (0, 0, size, size), Image.Resampling.BICUBIC)


def _part(
    array: Pixels, scaled: tuple[int, int], window: Window, resampling: Image.Resampling
) -> Pixels:
    """Return a window of an array scaled to (height, width); only the window is computed."""
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
    """Augmentation of an image together with its mask."""

    def __init__(self, settings: SegmentationAugmentation, size: int, seed: int) -> None:
        """Store the settings.

        Args:
            settings: Changes to make.
            size: Side of the result in pixels.
            seed: Seed of the run.
        """
        self.settings, self.size, self.seed = settings, size, seed

    def __call__(
        self, image: Pixels, labels: Pixels, epoch: int, row: int
    ) -> tuple[Pixels, Pixels]:
        """Augment an image and its mask.

        Args:
            image: [H, W, 3].
            labels: [H, W], 255 for unlabelled pixels.
            epoch: Epoch, from 0.
            row: Row of the pair in the split's file.

        Returns:
            Image [size, size, 3] and mask [size, size].
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
        """Return a random window of the scaled pair, padded on the right and below if needed."""
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
        padded = np.zeros((self.size, self.size, 3), np.uint8)
        padded_labels = np.full((self.size, self.size), IGNORE_INDEX, np.uint8)
        padded[:tall, :wide], padded_labels[:tall, :wide] = shown, part
        return padded, padded_labels


def largest_share(labels: Pixels) -> float:
    """Return the most frequent class's share of the labelled pixels; 0 if none is labelled."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    return float(counts.max() / max(1, counts.sum()))


def photometric(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Change brightness, contrast, saturation and hue, each with probability one half.

    Args:
        image: [H, W, 3].
        rng: Random generator; the number of draws does not depend on the changes that are made.

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
