"""The kinds of data that are described, and how a folder or table shows its kind."""

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from datamodules.describing.base import Description
from datamodules.describing.images import ImageDescription, MultilabelImageDescription
from datamodules.describing.masks import MaskDescription
from datamodules.describing.several_labels import guess_labels, sample_columns
from datamodules.describing.texts import MultilabelTextDescription, TextDescription
from datamodules.images.listing import IMAGE_SUFFIXES, Listing
from datamodules.inferring.folders.mask_layouts import find_layout
from datamodules.reading.errors import DataError
from datamodules.reading.sources import AUTO
from datamodules.reading.tables import SUFFIXES
from run_folders.errors import shortened

# Option of the config group `data` -> its description.
KINDS: Mapping[str, type[Description]] = {
    kind.template: kind
    for kind in (
        TextDescription,
        MultilabelTextDescription,
        ImageDescription,
        MultilabelImageDescription,
        MaskDescription,
    )
}
_LISTED = 100_000  # files that are listed to see the kind
_IMAGES_OF_A_PAIR = 2  # columns of images in a table of images and masks


def kind_of(path: Path) -> str:
    """Return the kind of data in a folder or table.

    Args:
        path: The folder or table.

    Raises:
        DataError: If neither tables nor images show it; the message is a question.
    """
    ask = f"which kind is it? give --kind with one of {', '.join(KINDS)}"
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            msg = f"{path}: it is no table ({', '.join(SUFFIXES)}); {ask}"
            raise DataError(msg)
        return _kind_of_table(path)
    files = Listing().walk(path)
    ends = Counter(Path(file.path).suffix.lower() for file in islice(files, _LISTED))
    images = sum(ends[end] for end in IMAGE_SUFFIXES)
    tables = sum(ends[end] for end in SUFFIXES)
    if tables:
        kind = _kind_of_table(path)
        if not images or kind not in ("text", "multilabel_text"):
            return kind
    if images:
        return "segmentation" if _has_masks(path) else "image"
    found = shortened(f"{end or 'no suffix'} ({n})" for end, n in ends.most_common())
    has = f"it has files with the suffixes {found}" if found else "it has no files"
    msg = f"{path}: {has}; {ask}"
    raise DataError(msg)


def _kind_of_table(path: Path) -> str:
    columns = sample_columns(path)
    images = sum(column.is_image() for column in columns)
    if images >= _IMAGES_OF_A_PAIR:
        return "segmentation"
    several = "multilabel_" if guess_labels(path) else ""
    return several + ("image" if images else "text")


def _has_masks(folder: Path) -> bool:
    try:
        find_layout(folder, dict.fromkeys(("train", "val", "test"), AUTO))
    except DataError:
        return False
    return True
