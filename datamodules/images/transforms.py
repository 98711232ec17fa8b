"""Random augmentation of training images, in batches, on the device of the batch.

Each image has its own random draw, which depends only on (seed, epoch, row of the image). It does
not depend on the batch, the number of processes or whether the run was resumed.
"""

from typing import Annotated, TypedDict

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

# Columns of the random draws.
_FLIP, _ANGLE, _ROW, _COLUMN = range(4)
_STREAM = 1  # makes the draws independent of the sample order, which has the same seed and epoch


class RandAugmentSettings(TypedDict):
    """Settings of RandAugment (Cubuk et al. 2020, arXiv 1909.13719).

    Attributes:
        num_ops: Number of operations per image.
        magnitude: Their strength, 0..30.
    """

    num_ops: Annotated[int, Ge(1)]
    magnitude: Annotated[int, Interval(ge=0, le=30)]


class Augmentation(TypedDict, total=False):
    """Augmentation settings, in the order in which the changes are made.

    Attributes:
        crop_padding: Width in pixels of a mirrored border; a window of the original size is cut
            from the padded image. 0 turns cropping off.
        flip: Whether to mirror half of the images horizontally.
        rotation: Largest angle in either direction, in degrees; pixels from outside are black.
        rand_augment: Settings of RandAugment; None turns it off.

    A change that is left out is not made.
    """

    crop_padding: Annotated[int, Ge(0)]
    flip: bool
    rotation: Annotated[float, Interval(ge=0, le=180)]
    rand_augment: RandAugmentSettings | None


NO_AUGMENTATION = Augmentation(crop_padding=0, flip=False, rotation=0.0, rand_augment=None)


class Augmenter:
    """Augmentation with the random draws of one epoch."""

    def __init__(self, settings: Augmentation, rows: int, seed: int, epoch: int) -> None:
        """Draw the random numbers of every row.

        Args:
            settings: Changes to make.
            rows: Number of rows of the split's file.
            seed: Seed of the run.
            epoch: Epoch, from 0.
        """
        self.settings, self.seed, self.epoch = settings, seed, epoch
        draws = np.random.default_rng([seed, epoch, _STREAM]).random((rows, 4), dtype=np.float32)
        self.draws = torch.from_numpy(draws)

    def __call__(self, images: Tensor, index: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            images: [B, 3, H, W] uint8.
            index: [B] int64 rows of the images.

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
        """Return [B] bool: whether each of these rows is mirrored if `flip` is on."""
        self.draws = self.draws.to(index.device)
        return self.draws[index, _FLIP] < 0.5  # noqa: PLR2004

    def _rand_augment(self, images: Tensor, index: Tensor, settings: RandAugmentSettings) -> Tensor:
        """Apply RandAugment to each image separately, because torchvision draws once per call.

        torchvision draws from the global generator, whose state is restored afterwards.
        """
        change = v2.RandAugment(settings["num_ops"], settings["magnitude"])
        changed = []
        with torch.random.fork_rng(devices=[]):
            for image, row in zip(images, index.tolist(), strict=True):
                # torch.manual_seed would also change the generator of the GPU.
                torch.default_generator.manual_seed(_image_seed(self.seed, self.epoch, row))
                changed.append(change(image))
        return torch.stack(changed)


def _image_seed(seed: int, epoch: int, row: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, row]).generate_state(1)[0])


def crop(images: Tensor, padding: int, rows: Tensor, columns: Tensor) -> Tensor:
    """Pad each image with a mirrored border and cut out a window of the original size.

    Args:
        images: [B, 3, H, W] uint8, H and W greater than the padding.
        padding: Pixels on each side.
        rows: [B] int64 top row of each window, 0..2 * padding.
        columns: [B] int64 left column of each window, 0..2 * padding.

    Returns:
        [B, 3, H, W] uint8.
    """
    height, width = images.shape[-2:]
    windows = _reflection_padded(images, padding).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, rows, columns]


def _reflection_padded(images: Tensor, padding: int) -> Tensor:
    """Pad each image with a mirrored border; the outermost pixel is not repeated."""
    for dim in (3, 2):
        before = images.narrow(dim, 1, padding).flip(dim)
        after = images.narrow(dim, images.shape[dim] - 1 - padding, padding).flip(dim)
        images = torch.cat([before, images, after], dim)
    return images


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image counter-clockwise about its centre; bilinear, pixels outside are black.

    Args:
        images: [B, 3, H, W] uint8.
        degrees: [B] float32.

    Returns:
        [B, 3, H, W] uint8.
    """
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees)
    cosine, sine, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # Coordinates run from -1 to 1 on both axes, so a rotation has to account for the aspect ratio.
    first = torch.stack([cosine, -sine * (height / width), zero], dim=-1)
    second = torch.stack([sine * (width / height), cosine, zero], dim=-1)
    grid = functional.affine_grid(
        torch.stack([first, second], dim=1), list(images.shape), align_corners=False
    )
    turned = functional.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return turned.round().to(torch.uint8)
