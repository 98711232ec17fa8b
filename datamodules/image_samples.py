"""Embedded images, generated from a seed: shapes and textures in random colours, with noise."""

import io
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge
from PIL import Image

from datamodules.base import SPLITS
from datamodules.image import ImageDataModule
from datamodules.images.rows import EncodedImage
from datamodules.images.transforms import Augmentation
from datamodules.reading.errors import BadRow
from datamodules.reading.sources import Files
from datamodules.samples import EMBEDDED, ROWS, Rows

SIDE = 32
_NOISE = 22.0  # standard deviation, in pixel values 0..255
_CONTRAST = 70.0  # smallest distance between the two colours
_AUGMENTATION = Augmentation(flip=True)

_Grid = npt.NDArray[np.float64]


def _polygon(x: _Grid, y: _Grid, radius: float, corners: int) -> npt.NDArray[np.bool_]:
    """Return the pixels inside a regular polygon with a corner at the top."""
    angles = np.pi / 2 + np.arange(corners) * 2 * np.pi / corners + np.pi / corners
    inside = [x * np.cos(a) + y * np.sin(a) <= radius * np.cos(np.pi / corners) for a in angles]
    return np.asarray(np.logical_and.reduce(inside))


# Each function returns the pixels of the second colour.
# x and y are distances from the centre in pixels; r is a size of 7 to 12 pixels.
_SHAPES: dict[str, Callable[[_Grid, _Grid, float], npt.NDArray[np.bool_]]] = {
    "disc": lambda x, y, r: np.hypot(x, y) <= r,
    "ring": lambda x, y, r: np.abs(np.hypot(x, y) - r) <= r / 4,
    "triangle": lambda x, y, r: _polygon(x, y, 1.3 * r, 3),
    "square": lambda x, y, r: _polygon(x, y, 1.2 * r, 4),
    "cross": lambda x, y, r: np.minimum(np.abs(x), np.abs(y)) <= r / 4,
    "bars": lambda x, y, r: np.sin(2 * np.pi * x / r) > 0,  # noqa: ARG005
    "checks": lambda x, y, r: np.sin(2 * np.pi * x / r) * np.sin(2 * np.pi * y / r) > 0,
    "dots": lambda x, y, r: np.cos(2 * np.pi * x / r) + np.cos(2 * np.pi * y / r) > 1,
    "waves": lambda x, y, r: np.sin(2 * np.pi * (x + r / 3 * np.sin(y * np.pi / r)) / r) > 0,
    "rings": lambda x, y, r: np.sin(2 * np.pi * np.hypot(x, y) / (0.7 * r)) > 0,
}
SAMPLE_CLASSES = list(_SHAPES)


def sample_image(label: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one image.

    Args:
        label: 0..9, the position in `SAMPLE_CLASSES`.
        rng: Generator for size, position, angle, colours and noise.

    Returns:
        [32, 32, 3] uint8.
    """
    radius = rng.uniform(7, 12)
    middle = SIDE / 2 + rng.uniform(-4, 4, size=2)
    angle = rng.uniform(-0.4, 0.4)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    across, down = columns - middle[0], rows - middle[1]
    x, y = (
        across * np.cos(angle) + down * np.sin(angle),
        down * np.cos(angle) - across * np.sin(angle),
    )
    first, second = rng.uniform(0, 255, size=(2, 3))
    while np.linalg.norm(first - second) < _CONTRAST:
        second = rng.uniform(0, 255, size=3)
    inside = _SHAPES[SAMPLE_CLASSES[label]](x, y, radius)
    picture = np.where(inside[..., None], second, first) + rng.normal(
        0, _NOISE, size=(SIDE, SIDE, 3)
    )
    return np.asarray(picture.round().clip(0, 255), dtype=np.uint8)


class SampleImagesDataModule(ImageDataModule):
    """Images generated from a fixed seed, the same in every run; each split has different ones."""

    def __init__(
        self,
        rows: Rows = ROWS,
        folder: str = "sample_images",
        files: Files = EMBEDDED,
        classes: list[str] | None = SAMPLE_CLASSES,
        size: Annotated[int, Ge(2)] | None = None,
        augmentation: Augmentation = _AUGMENTATION,
        **settings: Any,  # noqa: ANN401 - the base's own arguments
    ) -> None:
        """Store the number of images per split; other arguments are those of `ImageDataModule`."""
        super().__init__(folder, files, classes, size=size, augmentation=augmentation, **settings)
        self.rows: Rows = {**ROWS, **rows}

    def sources(self) -> dict[str, Iterable[EncodedImage | BadRow]]:
        """Draw the images of each split."""
        return {
            split: self._drawn(split, int(self.rows[split]), stream)  # type: ignore[literal-required]
            for stream, split in enumerate(SPLITS)
        }

    def _drawn(self, split: str, count: int, stream: int) -> Iterable[EncodedImage | BadRow]:
        rng = np.random.default_rng([0, stream])
        for index in range(count):
            label = index % len(SAMPLE_CLASSES)
            buffer = io.BytesIO()
            Image.fromarray(sample_image(label, rng)).save(buffer, "PNG", compress_level=1)
            yield EncodedImage(
                index, buffer.getvalue(), label, f"sample_images, {split}", index + 1
            )
