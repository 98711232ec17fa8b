"""Where a dataset is, and which of its files or folders belongs to which split."""

import re
from collections.abc import Iterable
from pathlib import Path

from datamodules.inferring.findings import Finding

# Names of a split's file or folder that are in use; the first one is Thaw's own.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# Words beside a split's name in the name of its folder: train_images, test-jpg.
_IMAGE_WORDS = frozenset(
    ("data", "image", "images", "img", "imgs", "jpeg", "jpg", "photos", "pictures", "png", "seg",
     "set")
)  # fmt: skip
_LETTERS = re.compile(r"[^\W\d_]+")
# Share of the samples that becomes the test split if the data has none.
TEST_FRACTION = 0.1


def dataset_folder(data_dir: str, folder: str) -> tuple[Path, list[Finding]]:
    """Return the dataset's folder, or its only file.

    It is looked for in `data_dir`, then in the working directory.

    Args:
        data_dir: Folder of the datasets.
        folder: The dataset's folder or file in it, or a path; a path may begin with `~/`.

    Returns:
        The path, which need not exist, and the finding for `folder` if it is not in `data_dir`.
    """
    is_home = folder.startswith("~/")
    here = Path(folder).expanduser() if is_home else Path(folder)
    inside = Path(data_dir) / here
    if is_home:
        return here, [Finding("folder", str(here), "~ is your home folder")]
    if inside.exists() or not here.exists():
        return inside, []
    found = here.resolve()
    return found, [Finding("folder", str(found), f"it is in the working directory, not {data_dir}")]


def split_of(name: str, splits: Iterable[str] = SPLIT_NAMES) -> str | None:
    """Return the split whose name this is, in any case; None for another name."""
    lowered = name.lower()
    return next((split for split in splits if lowered in SPLIT_NAMES[split]), None)


def split_of_folder(name: str) -> str | None:
    """Return the split whose folder of images has this name, such as `train_images`."""
    words = {word.lower() for word in _LETTERS.findall(name)} - _IMAGE_WORDS
    return split_of(words.pop()) if len(words) == 1 else None


def only_split_in(name: str) -> str:
    """Return the only split that a name has as a word, such as `moods_train`; else no text."""
    splits = {split_of(word) for word in _LETTERS.findall(name)} - {None}
    return str(splits.pop()) if len(splits) == 1 else ""
