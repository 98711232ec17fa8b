"""Embedded images with masks, generated from a seed: noisy landscapes with exact masks.

The classes are sky, ground, house, tree and sun.
"""

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from datamodules.base import SPLITS, BatchSize
from datamodules.images.rows import EncodedImage
from datamodules.masks.class_list import Pixels
from datamodules.masks.rows import EncodedPair
from datamodules.masks.transforms import SegmentationAugmentation
from datamodules.reading.errors import BadRow
from datamodules.reading.sources import Files
from datamodules.samples import EMBEDDED, Rows
from datamodules.segmentation import SegmentationDataModule, png

SIDE = 64
SCENES = Rows(train=400, val=100, test=100)
SKY, GROUND, HOUSE, TREE, SUN = range(5)
_NOISE = 16.0  # standard deviation, in pixel values 0..255
_AUGMENTATION = SegmentationAugmentation(flip=True)

_Colour = npt.NDArray[np.float64]


class _Canvas:
    """An image and its mask during drawing; each region covers the earlier ones."""

    def __init__(self) -> None:
        self.rows, self.columns = np.mgrid[:SIDE, :SIDE] + 0.5
        self.image = np.zeros((SIDE, SIDE, 3))
        self.labels = np.zeros((SIDE, SIDE), np.uint8)

    def paint(self, where: npt.NDArray[np.bool_], label: int, colour: _Colour) -> None:
        """Set the class and the colour of a region; the colour may differ between pixels."""
        self.image[where] = np.broadcast_to(colour, self.image.shape)[where]
        self.labels[where] = label


def sample_pair(rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Draw one image with its mask.

    Args:
        rng: Generator for positions, sizes, colours and noise.

    Returns:
        Image [64, 64, 3], and mask [64, 64] (sky 0, ground 1, house 2, tree 3, sun 4).
    """
    canvas = _Canvas()
    horizon = rng.uniform(28, 44) + rng.uniform(1, 4) * np.sin(
        canvas.columns / rng.uniform(6, 14) + rng.uniform(0, 6)
    )
    fade = (canvas.rows / SIDE)[..., None]
    above, below = _colour(rng, (90, 140, 200), 40), _colour(rng, (190, 200, 220), 40)
    canvas.paint(canvas.rows < horizon, SKY, above * (1 - fade) + below * fade)
    canvas.paint(
        canvas.rows >= horizon, GROUND, _colour(rng, (130, 125, 70), 45) * (0.75 + 0.4 * fade)
    )
    if rng.random() < 0.7:  # noqa: PLR2004 - in most pairs
        place = rng.uniform(6, 58), rng.uniform(5, 20)
        near = np.hypot(canvas.columns - place[0], canvas.rows - place[1]) < rng.uniform(3, 7)
        canvas.paint(near & (canvas.labels == SKY), SUN, _colour(rng, (245, 220, 110), 20))
    middle = float(horizon.mean())
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.5:  # noqa: PLR2004 - as many houses as trees
            _house(canvas, rng, rng.uniform(4, 60), middle + rng.uniform(2, 14))
        else:
            _tree(canvas, rng, rng.uniform(4, 60), middle + rng.uniform(2, 14))
    noisy = canvas.image + rng.normal(0, _NOISE, canvas.image.shape)
    return noisy.round().clip(0, 255).astype(np.uint8), canvas.labels


def _colour(rng: np.random.Generator, around: tuple[int, int, int], spread: float) -> _Colour:
    return np.asarray(around) + rng.uniform(-spread, spread, 3)


def _house(canvas: _Canvas, rng: np.random.Generator, middle: float, foot: float) -> None:
    """Draw walls, a door and a pointed roof, all of class house."""
    half, tall, peak = rng.uniform(6, 11), rng.uniform(8, 14), rng.uniform(4, 9)
    across, up = np.abs(canvas.columns - middle), foot - canvas.rows
    canvas.paint(
        (across < half) & (up >= 0) & (up < tall), HOUSE, _colour(rng, (190, 140, 120), 50)
    )
    canvas.paint(
        (across < half / 4) & (up >= 0) & (up < tall / 2), HOUSE, _colour(rng, (80, 55, 45), 30)
    )
    share = (up - tall) / peak
    canvas.paint(
        (share >= 0) & (share < 1) & (across < (half + 2) * (1 - share)),
        HOUSE,
        _colour(rng, (150, 60, 50), 40),
    )


def _tree(canvas: _Canvas, rng: np.random.Generator, middle: float, foot: float) -> None:
    """Draw a trunk and a round crown, both of class tree."""
    radius, tall = rng.uniform(5, 9), rng.uniform(5, 10)
    across, up = canvas.columns - middle, foot - canvas.rows
    canvas.paint(
        (np.abs(across) < radius / 5) & (up >= 0) & (up < tall + radius),
        TREE,
        _colour(rng, (95, 70, 50), 25),
    )
    canvas.paint(
        np.hypot(across, up - tall - radius * 0.8) < radius, TREE, _colour(rng, (60, 110, 55), 35)
    )


class SampleScenesDataModule(SegmentationDataModule):
    """Images with masks, generated from a fixed seed, the same in every run.

    Each split has different images.
    """

    def __init__(
        self,
        rows: Rows = SCENES,
        folder: str = "sample_scenes",
        files: Files = EMBEDDED,
        class_list: str | dict[str, Any] = "sample_scenes",
        num_classes: int = 5,
        size: Annotated[int, Ge(2)] = SIDE,
        augmentation: SegmentationAugmentation | None = _AUGMENTATION,
        batch_size: BatchSize = 16,
        eval_batch_size: BatchSize = 50,
        **settings: Any,  # noqa: ANN401 - the base's own arguments
    ) -> None:
        """Store the number of pairs per split.

        Other arguments are those of `SegmentationDataModule`.
        """
        super().__init__(
            folder,
            files,
            class_list,
            num_classes,
            size=size,
            augmentation=augmentation,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            **settings,
        )
        self.rows: Rows = {**SCENES, **rows}

    def sources(self) -> dict[str, Iterable[EncodedPair | BadRow]]:
        """Draw the images and masks of each split."""
        return {
            split: self._drawn(split, int(self.rows[split]), stream)  # type: ignore[literal-required]
            for stream, split in enumerate(SPLITS)
        }

    def _drawn(self, split: str, count: int, stream: int) -> Iterable[EncodedPair | BadRow]:
        rng = np.random.default_rng([0, stream])
        for index in range(count):
            image, labels = sample_pair(rng)
            name = f"sample_scenes, {split}"
            yield EncodedPair(
                EncodedImage(index, png(image), 0, name, index + 1),
                png(labels),
                f"{name}, row {index + 1}",
            )
