"""What the names of folders and files say: images or masks, and of which split."""

import re
from pathlib import PurePosixPath

from datamodules.inferring.splits import SPLIT_NAMES, split_of
from datamodules.masks.rows import SPLIT

_IMAGE_WORDS = frozenset(
    ("image", "images", "img", "imgs", "jpegimages", "leftimg8bit", "photo", "photos", "picture",
     "pictures", "rgb", "input", "inputs", "original", "originals")
)  # fmt: skip
MASK_WORDS = frozenset(
    ("mask", "masks", "annotation", "annotations", "annot", "annots", "ann", "label", "labels",
     "gt", "groundtruth", "truth", "seg", "segmentation", "segmentations", "segmentationclass",
     "gtfine", "target", "targets", "trainids", "labelids", "labeltrainids", "trimap", "trimaps")
)  # fmt: skip
# Masks of instances, and pictures of masks for the eye.
_OTHER_WORDS = frozenset(
    ("color", "colors", "colour", "colours", "instance", "instances", "instanceids", "object",
     "objects", "segmentationobject", "overlay", "overlays", "vis", "polygons")
)  # fmt: skip
_SPLIT_WORD = "|".join(sorted((n for names in SPLIT_NAMES.values() for n in names), key=len)[::-1])
_WORDS = re.compile(r"[A-Z]?[a-z]+\d*[a-z]*|[A-Z]+|\d+")


def place_of(folder: PurePosixPath) -> str:
    """Return the place of a folder: its path up to the last part with a known name.

    Example:
        `gtFine/val/frankfurt` is in the place `gtFine/{split}`.
    """
    parts = [_with_split(part) for part in folder.parts]
    # Only the first split counts: `train/val` is a folder `val` in a split.
    seen = False
    for number, part in enumerate(parts):
        if SPLIT in part and seen:
            parts[number] = folder.parts[number]
        seen = seen or SPLIT in part
    known = [i for i, part in enumerate(parts) if SPLIT in part or kind_of_name(part)]
    return "/".join(parts[: known[-1] + 1 if known else 1]) or "."


def kind_of(place: str) -> str:
    """Return what a place has by its name: image, mask, other, or an empty string."""
    kinds = [kind_of_name(part) for part in place.split("/")]
    return next((kind for kind in ("other", "mask", "image") if kind in kinds), "")


def _with_split(name: str) -> str:
    """Return the name of a folder with `{split}` in place of the split that it names."""
    if split_of(name):
        return SPLIT
    found = re.fullmatch(rf"(?i)(.*[_\-. ])?({_SPLIT_WORD})(.*)", name)
    if found is None:
        return name
    before, _, after = found.groups()
    rest = after.lower()
    if (rest and rest[0] in "_-. ") or rest in MASK_WORDS | _IMAGE_WORDS or (before and not rest):
        return f"{before or ''}{SPLIT}{after}"
    return name


def kind_of_name(name: str) -> str:
    """Return what a name says: image, mask, other, or an empty string."""
    plain = name.replace(SPLIT, "_").strip("_-. ")
    words = {plain.lower(), plain.replace("_", "").lower()}
    words |= {word.lower() for word in _WORDS.findall(plain)}
    if words & _OTHER_WORDS:
        return "other"
    if words & MASK_WORDS:
        return "mask"
    return "image" if words & _IMAGE_WORDS else ""
