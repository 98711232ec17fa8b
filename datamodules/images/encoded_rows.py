"""The images of a split before decoding, without a Python object per image."""

import os
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from datamodules.images.rows import EncodedImage
from datamodules.reading.errors import BadRow
from datamodules.reading.splits import Groups
from datamodules.reading.texts import Texts

_NO_ROW = 0  # rows of a table count from 1


class EncodedRows:
    """A list of `EncodedImage`s, stored column by column.

    Attributes:
        index: Row of each image in the split's file, from 0.
        rows: Row of each image in its file, from 1; 0 for an image file.
        files: Name of each image's file, for messages.
        paths: Path of each image file; empty for the others, whose content is in `contents`.
        contents: Position -> content.
        labels: Label of each image; see `LabelReader`. Equal tuples are one object.
        groups: Group of each image, if the images have groups.
    """

    def __init__(self) -> None:
        self.index, self.rows = array("q"), array("q")
        self.files, self.paths = Texts(), Texts()
        self.contents: dict[int, bytes] = {}
        self.labels: list[Any] = []
        self.groups = Groups()
        self._known: dict[Any, Any] = {}

    @classmethod
    def gather(cls, images: Iterable[EncodedImage | BadRow]) -> tuple[Self, list[BadRow]]:
        """Return the images, and the bad rows among them."""
        rows, bad = cls(), []
        for image in images:
            if isinstance(image, BadRow):
                bad.append(image)
            else:
                rows.append(image)
        return rows, bad

    def append(self, image: EncodedImage) -> None:
        """Add an image."""
        if isinstance(image.source, bytes):
            self.contents[len(self)] = image.source
            self.paths.append("")
        else:
            self.paths.append(str(image.source))
        self.index.append(image.index)
        self.rows.append(image.row or _NO_ROW)
        self.files.append(image.file)
        if image.group is not None:
            self.groups.append(image.group)
        if isinstance(image.label, tuple):
            self.labels.append(self._known.setdefault(image.label, image.label))
        else:
            self.labels.append(image.label)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, position: int) -> EncodedImage:
        """Return an image."""
        content = self.contents.get(position)
        source = Path(self.paths[position]) if content is None else content
        row = self.rows[position]
        return EncodedImage(
            self.index[position],
            source,
            self.labels[position],
            self.files[position],
            None if row == _NO_ROW else row,
        )

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """[N] row of each image in the split's file, from 0."""
        return np.array(self.index, np.int64)

    def indices_at(self, positions: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the rows of the images at these positions."""
        return np.array([self.index[p] for p in positions], np.int64)

    def name(self, position: int) -> str:
        """Return the name by which the user recognises an image."""
        row = self.rows[position]
        file = self.files[position]
        return file if row == _NO_ROW else f"{file}, row {row}"

    def size(self, position: int) -> int:
        """Return the number of bytes of an image; -1 if its file does not exist."""
        content = self.contents.get(position)
        if content is not None:
            return len(content)
        try:
            return os.stat(self.paths[position]).st_size  # noqa: PTH116 - a Path takes longer
        except OSError:  # reported when the image is read
            return -1

    def take(self, positions: Sequence[int], *, sources: bool = True) -> Self:
        """Return the images at these positions; without `sources`, they cannot be read any more."""
        taken = type(self)()
        taken.index = array("q", (self.index[p] for p in positions))
        taken.rows = array("q", (self.rows[p] for p in positions))
        taken.files = self.files.take(positions)
        taken.labels = [self.labels[p] for p in positions]
        taken.groups = self.groups.take(positions)
        if sources:
            taken.paths = self.paths.take(positions)
            taken.contents = {
                new: self.contents[old] for new, old in enumerate(positions) if old in self.contents
            }
        return taken
