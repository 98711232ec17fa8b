"""Where the images and masks of a dataset are, found from the names of folders and files.

A place is a pattern such as `images/{split}`, relative to the dataset's folder.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path, PurePosixPath

from datamodules.images.listing import IMAGE_SUFFIXES, Listing
from datamodules.inferring.folders.mask_lists import find_lists
from datamodules.inferring.folders.mask_names import MASK_WORDS, kind_of, kind_of_name, place_of
from datamodules.inferring.splits import split_of
from datamodules.masks.rows import SPLIT
from datamodules.reading.errors import DataError
from datamodules.reading.sources import AUTO
from run_folders.errors import shortened

# Places and ends of names for lists that name the files of both.
LISTED = ("images/{split}", "annotations/{split}", None, ".png")
_LEAST_SHARE = 0.5  # of the images or masks that belong together if two places do
Suffixes = tuple[str | None, str | None]  # of images and of masks


@dataclass(frozen=True)
class Layout:
    """Where the images and masks of a dataset are.

    Attributes:
        images, annotations: Places of images and of masks.
        image_suffix, annotation_suffix: See `SegmentationReader`.
        splits: Split -> its name in the places; `.` for train if the places have no splits.
    """

    images: str
    annotations: str
    image_suffix: str | None
    annotation_suffix: str
    splits: dict[str, str]


def find_layout(
    folder: Path,
    files: Mapping[str, str | None],
    images: str | None = None,
    annotations: str | None = None,
    suffixes: Suffixes = (None, None),
) -> Layout:
    """Find where images and masks are.

    Args:
        folder: The dataset's folder.
        files: Split -> its name in the places; `auto` if it is to be found.
        images: Place of the images; None if it is to be found.
        annotations: Place of the masks; None if it is to be found.
        suffixes: Ends of the names of images and of masks; None if they are to be found.

    Raises:
        DataError: If the names do not decide it.
    """
    everything = [file.path for file in Listing().walk(folder) if not file.fault]
    paths = [path for path in everything if path.lower().endswith(IMAGE_SUFFIXES)]
    for key, place in (("images", images), ("annotations", annotations)):
        if place and not files_in(paths, place, files):
            msg = f"data.{key}={place}: not found in {folder}; image files are in {_folders(paths)}"
            raise DataError(msg)
    places = dict.fromkeys(place_of(PurePosixPath(path).parent) for path in paths)
    kinds = {place: kind_of(place) for place in places}
    of_images = [images] if images else [p for p, kind in kinds.items() if kind in ("image", "")]
    of_masks = [annotations] if annotations else [p for p, kind in kinds.items() if kind == "mask"]
    found = _layouts(paths, product(of_images, of_masks), files, suffixes)
    if not found and not annotations:
        others = [place for place, kind in kinds.items() if kind == "other"]
        found = _layouts(paths, product(of_images, others), files, suffixes)
    if not found and not (images and annotations):
        together = [images or annotations] if images or annotations else of_images
        found = _layouts(paths, [(place, place) for place in together if place], files, suffixes)
    if len(found) != 1:
        lists = {} if found else find_lists(folder, files, everything, ("", ""), ("", ""))
        if not lists:
            raise _unclear(folder, paths, files, found)
        return Layout(*LISTED, splits=lists)
    return _with_lists(folder, _with_image_suffix(found[0], everything), files, everything)


def _with_image_suffix(layout: Layout, paths: Sequence[str]) -> Layout:
    """Return a layout with the end of the images' names, if the dataset's folder has images.

    It may also have other files, such as a list of the classes.
    """
    ends = {PurePosixPath(path).suffix for path in paths if "/" not in path}
    of_images = {end for end in ends if end.lower() in IMAGE_SUFFIXES}
    if layout.images != "." or layout.image_suffix or len(of_images) > 1 or ends == of_images:
        return layout
    return replace(layout, image_suffix=of_images.pop())


def _with_lists(
    folder: Path, layout: Layout, files: Mapping[str, str | None], paths: Sequence[str]
) -> Layout:
    """Return a layout with the lists of names in place of the splits that its places lack."""
    if SPLIT in layout.images or files["train"] != AUTO:
        return layout
    start = "" if layout.images == "." else f"{layout.images}/"
    inside = [path for path in paths if path.startswith(start)]
    ends = Counter(PurePosixPath(path).suffix for path in inside)
    end = layout.image_suffix or ends.most_common(1)[0][0]
    masks = layout.annotations, layout.annotation_suffix
    lists = find_lists(folder, files, paths, (layout.images, end), masks)
    return replace(layout, image_suffix=end, splits=lists) if lists else layout


def _layouts(
    paths: Sequence[str],
    pairs: Iterable[tuple[str, str]],
    files: Mapping[str, str | None],
    suffixes: Suffixes,
) -> list[Layout]:
    """Return the layouts of those pairs of places whose files belong together."""
    return [
        layout
        for images, masks in pairs
        if (SPLIT in images) == (SPLIT in masks)
        for layout in _layouts_of(paths, images, masks, files, suffixes)
    ]


def _layouts_of(
    paths: Sequence[str], images: str, masks: str, files: Mapping[str, str | None], given: Suffixes
) -> list[Layout]:
    """Return a layout for each end that the names of the masks may have."""
    images_of, masks_of = (files_in(paths, place, files) for place in (images, masks))
    splits = {split: name for split, name in images_of if (split, name) in masks_of}
    if "train" not in splits:
        return []
    train = ("train", splits["train"])
    if images == masks:
        ends = _ends_beside(images_of[train], given)
    else:
        ends = _ends(images_of[train], masks_of[train], given)
    return [Layout(images, masks, *found, splits) for found in ends]


def files_in(
    paths: Sequence[str], place: str, files: Mapping[str, str | None]
) -> dict[tuple[str, str], list[str]]:
    """Return split and its name in the place -> its files, relative to the split's folder.

    Args:
        paths: Files of the dataset.
        place: A place.
        files: Split -> its name in the place; `auto` if any name of the split counts.
    """
    found: dict[tuple[str, str], list[str]] = {}
    known = {name: split for split, name in files.items()}
    is_open = [split for split, name in files.items() if name == AUTO]
    inside = "" if place == "." else re.escape(place) + "/"
    pattern = re.compile(inside.replace(re.escape(SPLIT), "(?P<split>[^/]+)", 1))
    for path in paths:
        match = pattern.match(path)
        if match is None:
            continue
        name = match.groupdict().get("split", ".")
        split = "train" if name == "." else known.get(name) or split_of(name, is_open)
        if split:
            found.setdefault((split, name), []).append(path[match.end() :])
    return found


def _ends(
    images: Sequence[str], masks: Sequence[str], given: Suffixes
) -> list[tuple[str | None, str]]:
    """Return the ends of the names of images and of masks that fit; see `SegmentationReader`."""
    for end in [given[0]] if given[0] else [None, *_common_end(images)]:
        keys = {_key(path, end) for path in images} - {""}
        counts = Counter(
            rest
            for rest in (_rest(path, keys) for path in masks)
            if rest and given[1] in (None, rest)
        )
        enough = _LEAST_SHARE * min(len(images), len(masks))
        if not counts or max(counts.values()) < enough:
            continue
        usual = [rest for rest, n in counts.items() if n >= _LEAST_SHARE * max(counts.values())]
        plain = [rest for rest in usual if kind_of_name(PurePosixPath(rest).stem) != "other"]
        return [(end, rest) for rest in plain or usual]
    return []


def _ends_beside(paths: Sequence[str], given: Suffixes) -> list[tuple[str | None, str]]:
    """Return the ends that tell images and masks in one folder apart."""
    ends = (given[1],) if given[1] else tuple({_last_word(path) for path in paths} - {""})
    masks = [path for path in paths if ends and path.endswith(ends)]
    images = [path for path in paths if path not in set(masks)]
    if not masks:
        images = [path for path in paths if path.lower().endswith((".jpg", ".jpeg"))]
        masks = [path for path in paths if path.lower().endswith(".png")]
    kinds = {PurePosixPath(path).suffix for path in images}
    first = kinds.pop() if len(kinds) == 1 else None
    return [(end or first, rest) for end, rest in _ends(images, masks, given)]


def _last_word(path: str) -> str:
    """Return the end of a mask's name from its last word on: `_mask.png`; empty for an image."""
    found = re.search(r"[_\-.]([^_\-.]+)\.\w+$", path)
    return found[0] if found and found[1].lower() in MASK_WORDS else ""


def _key(path: str, end: str | None) -> str:
    if end is None:
        return PurePosixPath(path).with_suffix("").as_posix()
    return path.removesuffix(end) if path.endswith(end) else ""


def _rest(path: str, keys: set[str]) -> str:
    """Return the end of a mask's path after the longest key of an image; empty if there is none."""
    start = path.rfind("/") + 1
    for place in range(len(path) - 1, start, -1):
        if not path[place].isalnum() and path[:place] in keys:
            return path[place:]
    return ""


def _common_end(images: Sequence[str]) -> list[str]:
    """Return the end that all images have, from its first separator on: `_leftImg8bit.png`."""
    backwards = [path[::-1] for path in images]
    common = os.path.commonprefix(backwards)[::-1]  # noqa: RUF071 - of characters, not of folders
    found = re.search(r"[_\-].*", common)
    return [found[0]] if found else []


def _unclear(
    folder: Path, paths: Sequence[str], files: Mapping[str, str | None], found: Sequence[Layout]
) -> DataError:
    """Return the question for a folder whose names do not decide the layout."""
    keys = "set data.images, data.annotations and data.annotation_suffix"
    if not paths:
        return DataError(f"{folder} has no image files ({', '.join(IMAGE_SUFFIXES)})")
    if found:
        shown = shortened(
            f"{a.images} with {a.annotations} (*{a.annotation_suffix})" for a in found
        )
        return DataError(f"{folder}: which are the images and masks: {shown}? {keys}")
    name = "train" if files["train"] == AUTO else f"data.files.train={files['train']}"
    return DataError(
        f"{folder}: where are the images of {name} and their masks? Image files are in "
        f"{_folders(paths)}; {keys}, with {{split}} for the names in data.files"
    )


def _folders(paths: Sequence[str]) -> str:
    """Return the folders of files, with the number of files in each."""
    counts = Counter(PurePosixPath(path).parent.as_posix() for path in paths)
    return shortened(f"{name} ({count})" for name, count in counts.items()) or "no folder"
