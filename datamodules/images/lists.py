"""Lists of labelled images: text files with a path on each line, and its class beside or in it."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datamodules.images.listing import IMAGE_SUFFIXES
from datamodules.reading.encodings import open_text

LIST = ".txt"
_SUFFIXES = "|".join(map(re.escape, IMAGE_SUFFIXES))
_WITH_LABEL = re.compile(rf"(.+?(?:{_SUFFIXES}))[\s,;]+(.+)", re.IGNORECASE)


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
