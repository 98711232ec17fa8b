"""Lists of images with masks: text files with one pair on each line."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datamodules.reading.encodings import open_text

LIST = ".txt"


class ListedPair(NamedTuple):
    """A line of a list.

    Attributes:
        line: Its number, from 1.
        image: Path of the image, relative to the dataset's folder.
        mask: Path of the mask, likewise.
    """

    line: int
    image: str
    mask: str


def read_list(path: Path, images: tuple[str, str], masks: tuple[str, str]) -> Iterator[ListedPair]:
    """Yield the pairs of a list. A line has a name, or the paths of an image and its mask.

    Args:
        path: The file.
        images: Folder of the images in the dataset's folder, and the end of their names.
        masks: Folder and end of the masks, likewise.
    """
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.split()
            if len(fields) == 2 and all(PurePosixPath(field).suffix for field in fields):  # noqa: PLR2004
                yield ListedPair(number, *(field.removeprefix("/") for field in fields))
            elif fields:
                name = line.strip().removesuffix(images[1])
                image, mask = ((PurePosixPath(at) / (name + end)) for at, end in (images, masks))
                yield ListedPair(number, image.as_posix(), mask.as_posix())
