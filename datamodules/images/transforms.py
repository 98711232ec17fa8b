"""Random changes of training images: a batch at a time, on whatever device it is, each image with its own draw.

What an image gets depends on (seed, epoch, its row) and on nothing else: not on the batch it is in,
the number of processes or whether the run was resumed.
"""

from typing import Annotated, TypedDict

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

# Columns of the draws.
_FLIP, _ANGLE, _ROW, _COLUMN = range(4)
_STREAM = 1  # apart from the order's stream of the same seed and epoch


class RandAugmentSettings(TypedDict):
    """Of RandAugment (Cubuk et al. 2020, arXiv 1909.13719): operations an image, and their strength 0..30."""

    num_ops: Annotated[int, Ge(1)]
    magnitude: Annotated[int, Interval(ge=0, le=30)]


class Augmentation(TypedDict):
    """Which changes are made, in this order.

    Attributes:
        crop_padding: Pixels of mirrored border, out of which a window of the old size is cut; 0 is
            none.
        flip: Left and right change places in half of the images.
        rotation: Largest angle to either side, in degrees; what turns into the picture is black.
        rand_augment: None is none.
    """

    crop_padding: Annotated[int, Ge(0)]
    flip: bool
    rotation: Annotated[float, Interval(ge=0, le=180)]
    rand_augment: RandAugmentSettings | None


NO_AUGMENTATION = Augmentation(crop_padding=0, flip=False, rotation=0.0, rand_augment=None)


class Augmenter:
    """Applies an augmentation with the draws of one epoch."""

    def __init__(self, settings: Augmentation, rows: int, seed: int, epoch: int) -> None:
        """Draw for every row.

        Args:
            settings: What is done.
            rows: Rows of the split's file.
            seed: The run's.
            epoch: From 0.
        """
        self.settings, self.seed, self.epoch = settings, seed, epoch
        draws = np.random.default_rng([seed, epoch, _STREAM]).random((rows, 4), dtype=np.float32)
        self.draws = torch.from_numpy(draws)

    def __call__(self, images: Tensor, index: Tensor) -> Tensor:
        """Change a batch.

        Args:
            images: [B, 3, H, W] uint8.
            index: [B] rows of the images.

        Returns:
            [B, 3, H, W] uint8.
        """
        self.draws = self.draws.to(images.device)
        draws, settings = self.draws[index], self.settings
        if settings["crop_padding"]:
            padding = settings["crop_padding"]
            steps = (draws[:, [_ROW, _COLUMN]] * (2 * padding + 1)).long()
            images = crop(images, padding, steps[:, 0], steps[:, 1])
        if settings["flip"]:
            images = torch.where(self.flipped(index)[:, None, None, None], images.flip(-1), images)
        if settings["rotation"]:
            images = rotate(images, (2 * draws[:, _ANGLE] - 1) * settings["rotation"])
        if settings["rand_augment"] is not None:
            images = self._rand_augment(images, index, settings["rand_augment"])
        return images

    def flipped(self, index: Tensor) -> Tensor:
        """[B] whether each of these rows is mirrored where `flip` is asked for."""
        self.draws = self.draws.to(index.device)
        return self.draws[index, _FLIP] < 0.5  # noqa: PLR2004

    def _rand_augment(self, images: Tensor, index: Tensor, settings: RandAugmentSettings) -> Tensor:
        """Image by image: torchvision draws once a call. It draws from the global generator, which is put back."""
        change = v2.RandAugment(settings["num_ops"], settings["magnitude"])
        changed = []
        with torch.random.fork_rng(devices=[]):
            for image, row in zip(images, index.tolist(), strict=True):
                # Not torch.manual_seed, which would reach the GPU's generator too.
                torch.default_generator.manual_seed(_image_seed(self.seed, self.epoch, row))
                changed.append(change(image))
        return torch.stack(changed)


def _image_seed(seed: int, epoch: int, row: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, row]).generate_state(1)[0])


def crop(images: Tensor, padding: int, rows: Tensor, columns: Tensor) -> Tensor:
    """Mirror a border around each image and cut a window of the old size out of it.

    Args:
        images: [B, 3, H, W] uint8, H and W greater than the padding.
        padding: Pixels on each side.
        rows: [B] int64 uppermost row of each window, 0..2 * padding.
        columns: [B] int64 leftmost column, likewise.

    Returns:
        [B, 3, H, W] uint8.
    """
    height, width = images.shape[-2:]
    windows = _bordered(images, padding).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, rows, columns]


def _bordered(images: Tensor, padding: int) -> Tensor:
    """Mirror a border around each image, the outermost pixel not doubled."""
    for dim in (3, 2):
        before = images.narrow(dim, 1, padding).flip(dim)
        behind = images.narrow(dim, images.shape[dim] - 1 - padding, padding).flip(dim)
        images = torch.cat([before, images, behind], dim)
    return images


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image counter-clockwise about its middle, bilinear, black outside.

    Args:
        images: [B, 3, H, W] uint8.
        degrees: [B] float32.

    Returns:
        [B, 3, H, W] uint8.
    """
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees)
    cosine, sine, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # Coordinates run from -1 to 1 on both sides, whatever their length.
    first = torch.stack([cosine, -sine * (height / width), zero], dim=-1)
    second = torch.stack([sine * (width / height), cosine, zero], dim=-1)
    grid = functional.affine_grid(
        torch.stack([first, second], dim=1), list(images.shape), align_corners=False
    )
    turned = functional.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return turned.round().to(torch.uint8)
