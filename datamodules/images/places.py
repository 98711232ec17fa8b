"""Images that a table or a list names: the lines of a list, and where the images are."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datamodules.images.content import file_fault, stored_path
from datamodules.images.listing import IMAGE_SUFFIXES, Listing
from datamodules.inferring.splits import split_of_folder
from datamodules.reading.encodings import open_text
from datamodules.reading.errors import DataError

LIST = ".txt"
_SUFFIXES = "|".join(map(re.escape, IMAGE_SUFFIXES))
_WITH_LABEL = re.compile(rf"(.+?(?:{_SUFFIXES}))[\s,;]+(.+)", re.IGNORECASE)
SAMPLE = 20  # names by which the folder is found
_MOST_FOLDERS = 100  # that are searched
_TRIED = 3  # names, as the first file may be missing


@dataclass(frozen=True)
class ImagePlace:
    """A folder of images, and how their names are completed.

    Attributes:
        folder: The folder that names are relative to.
        suffix: What the names lack at their end, such as `.jpg`; empty if they are complete.
    """

    folder: Path
    suffix: str = ""

    def count(self, names: Sequence[str]) -> int:
        """Return how many of the names are files."""
        paths = (stored_path(self.folder / f"{name.strip()}{self.suffix}") for name in names)
        return sum(not file_fault(path) for path in paths)


def place_of(
    names: Sequence[str], folder: Path, split: str, root: Path | None = None
) -> ImagePlace | None:
    """Return where the images are; None if they are not found.

    They are in the folder itself, in the folder above if that is in the dataset, or in a folder in
    one of these. The folder of the split is taken before others. The names may lack their suffix.

    Args:
        names: The first names in a table or list.
        folder: Its folder.
        split: Its split.
        root: The dataset's folder; None if it is not known.

    Raises:
        DataError: If there are such files in several folders.
    """
    beside = ImagePlace(folder)
    if beside.count(names):
        return beside
    inside = root is not None and folder != root and folder.is_relative_to(root)
    tops = [folder, folder.parent] if inside else [folder]
    found = {place: place.count(names) for place in _places(names[:_TRIED], tops)}
    best = [place for place, count in found.items() if count == max(found.values())]
    own = [place for place in best if split_of_folder(place.folder.name) == split]
    chosen = own or best
    if len(chosen) > 1:
        shown = " and in ".join(str(place.folder / f"{names[0]}{place.suffix}") for place in chosen)
        msg = f"the image {names[0]} is in {shown}; write the folder into the table, or move one"
        raise DataError(msg)
    return chosen[0] if chosen else None


def _places(names: Sequence[str], tops: Sequence[Path]) -> Iterator[ImagePlace]:
    """Yield the places in folders, and in the folders in them, where one of the names is a file."""
    inner = [[top / name for name in Listing().top(top)[0]] for top in tops]
    folders = [*tops, *(path for paths in inner if len(paths) <= _MOST_FOLDERS for path in paths)]
    for path in dict.fromkeys(folders):
        for suffix in ("", *IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)):
            if ImagePlace(path, suffix).count(names):
                yield ImagePlace(path, suffix)


class ListedImage(NamedTuple):
    """A line of a list.

    Attributes:
        line: Its number, from 1.
        path: Path of the image; its suffix may be missing.
        label: Its class; empty if the line names none.
    """

    line: int
    path: str
    label: str


def read_list(path: Path) -> Iterator[ListedImage]:
    """Yield the images of a list, whose lines are `path label` or `class/name`."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            found = _WITH_LABEL.fullmatch(text)
            if found is not None:
                yield ListedImage(number, found[1], found[2])
            elif text:
                yield ListedImage(number, text, PurePosixPath(text).parent.name)
