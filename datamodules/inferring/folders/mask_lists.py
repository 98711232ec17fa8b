"""Lists of images and masks in a dataset's folder, such as `ImageSets/Segmentation/train.txt`."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from datamodules.inferring.splits import split_of
from datamodules.masks.lists import LIST, read_list
from datamodules.reading.errors import DataError
from datamodules.reading.sources import AUTO

_LEAST_SHARE = 0.9  # of the lines of a list whose image and mask exist


def find_lists(
    folder: Path,
    files: Mapping[str, str | None],
    paths: Sequence[str],
    images: tuple[str, str],
    masks: tuple[str, str],
) -> dict[str, str]:
    """Return split -> its list; empty if there are no lists of pairs.

    Args:
        folder: The dataset's folder.
        files: Split -> its list; `auto` if it is to be found.
        paths: All files of the dataset.
        images: Folder of the images, and the end of their names.
        masks: Folder and end of the masks.

    Raises:
        DataError: If lists in several folders fit.
    """
    known = set(paths)
    found: dict[PurePosixPath, dict[str, str]] = {}
    for path in map(PurePosixPath, paths):
        split = split_of(path.stem, [split for split, name in files.items() if name == AUTO])
        if path.suffix == LIST and split and _fits(folder / path, known, images, masks):
            found.setdefault(path.parent, {})[split] = path.as_posix()
    groups = [group for group in found.values() if "train" in group]
    if len(groups) > 1:
        shown = " or ".join(group["train"] for group in groups)
        msg = f"{folder}: which list is train: {shown}? set data.files"
        raise DataError(msg)
    return groups[0] if groups else {}


def _fits(
    path: Path, known: Collection[str], images: tuple[str, str], masks: tuple[str, str]
) -> bool:
    """Return whether nearly all pairs of a list are among the known files."""
    pairs = list(read_list(path, images, masks))
    there = sum(pair.image in known and pair.mask in known for pair in pairs)
    return there >= _LEAST_SHARE * len(pairs) > 0
