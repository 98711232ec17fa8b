"""Readers of folders, Parquet files and the hub that return encoded images with encoded masks."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from datamodules.images.content import content_of, digest_of, file_fault
from datamodules.images.listing import FoundFile, Listing
from datamodules.images.rows import EncodedImage
from datamodules.masks.lists import LIST, ListedPair, read_list
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.rows import Row
from datamodules.reading.tables import read_rows
from run_folders.errors import shortened

log = logging.getLogger(__name__)

PARQUET = ".parquet"
SPLIT = "{split}"  # placeholder for the name of a split in the path of a folder


@dataclass(frozen=True)
class EncodedPair:
    """An image with its mask, before decoding.

    Attributes:
        image: The image; its `label` is not used.
        annotation: File of the mask, or its content.
        annotation_name: Name by which the user recognises the mask.
    """

    image: EncodedImage
    annotation: bytes | Path
    annotation_name: str

    @property
    def index(self) -> int:
        """Row in the split's file, from 0; in a folder, position of the image among its files."""
        return self.image.index

    def digests(self) -> tuple[str, str]:
        """Return the digests of the image and of the mask."""
        return self.image.digest(), digest_of(self.annotation)

    def annotation_fault(self, split: str, reason: str) -> BadRow:
        """Return the mask of this pair as a bad row."""
        name = self.image.file if self.image.row is not None else self.annotation_name
        return BadRow(
            split,
            name,
            self.image.row,
            None,
            f"the mask {reason}" if self.image.row is not None else reason,
        )


@dataclass(frozen=True)
class SegmentationReader:
    """Reader of images with masks from folders, Parquet files or the hub.

    Attributes:
        images, annotations: Folders of a split in the dataset's folder, with the placeholder
            `{split}`.
        image_suffix: End of the image file names; other files are skipped. None accepts all names.
        annotation_suffix: End of a mask's file name; it replaces the suffix of the image.
        image_column, annotation_column: Columns of a Parquet file.
    """

    images: str
    annotations: str
    image_suffix: str | None
    annotation_suffix: str
    image_column: str
    annotation_column: str

    @property
    def are_mixed(self) -> bool:
        """Whether images and masks are in one folder, and no end of their names separates them."""
        together = self.images == self.annotations and self.image_suffix is None
        return together and self.annotation_suffix.startswith(".")

    def read(self, root: Path, name: str, split: str) -> Iterator[EncodedPair | BadRow]:
        """Read a split.

        Args:
            root: The dataset's folder.
            name: A Parquet file, a list of names, or the name that replaces `{split}`.
            split: Split that bad rows name.

        Yields:
            Pairs and bad rows in order.

        Raises:
            DataError: If the folder of images or of masks does not exist.
        """
        path = root / self.place(name)
        if name.endswith(PARQUET):
            rows = read_rows(path, [self.image_column, self.annotation_column])
            yield from self.from_rows(rows, path.name, split)
            return
        if name.endswith(LIST):
            yield from self._listed(root, path, split)
            return
        annotations = root / self.annotations.replace(SPLIT, name)
        for folder, what in ((path, "images"), (annotations, "masks")):
            if not folder.is_dir():
                msg = (
                    f"{folder.resolve()} does not exist; it should contain the {what} of {name}; "
                    "create it, or set data.files to .parquet files"
                )
                raise DataError(msg)
        yield from self._pairs(root, path, annotations, split)

    def has_folders(self, root: Path, name: str) -> bool:
        """Whether a split has its folders of images and masks; `.` for a split that is `root`."""
        folders = self.images, self.annotations
        is_list = name.endswith((PARQUET, LIST))
        return not is_list and all((root / f.replace(SPLIT, name)).is_dir() for f in folders)

    def place(self, name: str) -> str:
        """Return the file or folder of a split's images, relative to the dataset's folder."""
        return name if name.endswith((PARQUET, LIST)) else self.images.replace(SPLIT, name)

    def from_rows(
        self, rows: Iterator[Row | BadRow], file: str, split: str
    ) -> Iterator[EncodedPair | BadRow]:
        """Read the pairs of a table; images and masks are bytes, or mappings with `bytes` (hub)."""
        for row in rows:
            if isinstance(row, BadRow):
                yield row
                continue
            image, annotation = (
                content_of(row.values.get(c)) for c in (self.image_column, self.annotation_column)
            )
            if image is None or annotation is None:
                empty = self.image_column if image is None else self.annotation_column
                yield BadRow(
                    split, file, row.index + 1, None, f"column '{empty}' holds no image bytes"
                )
            else:
                number = row.index + 1
                yield EncodedPair(
                    EncodedImage(row.index, image, 0, file, number),
                    annotation,
                    f"{file}, row {number}",
                )

    def masks_in(self, annotations: Path, listing: Listing | None = None) -> "Masks":
        """Return the masks below a folder; `listing` counts the files."""
        masks = Masks(self.annotation_suffix, self.image_suffix)
        for file in (listing or Listing()).walk(annotations):
            masks.add(file)
        return masks

    def image_key(self, path: str) -> str | None:
        """Return what an image's path and its mask's have in common; None if it is no image.

        Args:
            path: Path relative to the folder of the images, with slashes.
        """
        if self.image_suffix is None:
            return normalize("NFC", PurePosixPath(path).with_suffix("").as_posix())
        return _without_suffix(path, self.image_suffix)

    def annotations_for(self, images: Path) -> Path | None:
        """Return the folder of masks for a folder of images, or for a subfolder of one.

        None if the path does not match `images`, or the folder of masks does not exist.
        """
        if self.images == ".":
            folder = images / self.annotations
            return folder if folder.is_dir() else None
        pattern = re.escape(self.images).replace(re.escape(SPLIT), "(?P<split>[^/]+)", 1)
        found = re.fullmatch(
            rf"(?P<root>.*)/{pattern}(?P<deeper>/.*)?", images.resolve().as_posix()
        )
        if found is None:
            return None
        names = found.groupdict()
        folder = Path(names["root"], self.annotations.replace(SPLIT, names.get("split", ""))) / (
            names["deeper"] or ""
        ).lstrip("/")
        return folder if folder.is_dir() else None

    def listed(self, path: Path) -> Iterator[ListedPair]:
        """Return the pairs in a list of names; see `read_list`."""
        images = self.images, self.image_suffix or ""
        return read_list(path, images, (self.annotations, self.annotation_suffix))

    def _listed(self, root: Path, path: Path, split: str) -> Iterator[EncodedPair | BadRow]:
        for index, (line, image, mask) in enumerate(self.listed(path)):
            missing = [name for name in (image, mask) if file_fault(root / name)]
            if missing:
                reason = f"{file_fault(root / missing[0])} {missing[0]} in {root}"
                yield BadRow(split, path.name, index + 1, line, reason)
            else:
                yield EncodedPair(
                    EncodedImage(index, root / image, 0, image, None), root / mask, mask
                )

    def _pairs(
        self, root: Path, images: Path, annotations: Path, split: str
    ) -> Iterator[EncodedPair | BadRow]:
        listing = Listing()
        masks = self.masks_in(annotations, listing)
        together = images.resolve() == annotations.resolve()
        files = masks.others if together else list((image_listing := Listing()).walk(images))
        if not together and annotations.is_relative_to(images):  # its files are listed twice
            below = f"{annotations.relative_to(images).as_posix()}/"
            files = [file for file in files if not file.path.startswith(below)]
        above, masks_above = (
            "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
            for folder in (images, annotations)
        )
        used: dict[str, str] = {}  # mask -> its image
        others: list[str] = []
        index = 0
        for file in files:
            shown, key = above + file.path, self.image_key(file.path)
            if key is None:
                others.append(file.path)
                continue
            mask = masks.files.get(key)
            reason = file.fault
            if not reason and mask is None:
                reason = f"has no mask: there is no {masks_above}{key}{self.annotation_suffix}"
            elif not reason and mask in used:
                reason = (
                    f"has the same name as {used[mask]}, whose mask is {masks_above}{mask}; "
                    "rename one of them"
                )
            if reason or mask is None:
                yield BadRow(split, shown, None, None, reason)
            else:
                used[mask] = shown
                image = EncodedImage(index, images / file.path, 0, shown, None)
                yield EncodedPair(image, annotations / mask, masks_above + mask)
            index += 1
        for fault in masks.faults:
            yield BadRow(split, masks_above + fault.path, None, None, fault.fault)
        for mask in sorted(set(masks.files.values()) - used.keys()):
            where = images.relative_to(root).as_posix()
            reason = f"is a mask without an image in {where}"
            yield BadRow(split, masks_above + mask, None, None, reason)
        listing.report(annotations)
        if not together:
            image_listing.report(images)
            _report_others(annotations, masks.others, "annotation_suffix", self.annotation_suffix)
        _report_others(images, others, "image_suffix", self.image_suffix)


class Masks:
    """The masks in a folder, which may contain images as well.

    Attributes:
        suffix, image_suffix: Ends of the names of masks and of images; upper and lower case count
            as equal. A name that fits both belongs to the longer one.
        files: Path of a mask without the suffix -> its path, relative to the folder.
        faults: Masks that cannot be used.
        others: Files that are no masks, as their names end otherwise.
    """

    def __init__(self, suffix: str, image_suffix: str | None) -> None:
        self.suffix, self.image_suffix = suffix, image_suffix or ""
        self.files: dict[str, str] = {}
        self.faults: list[FoundFile] = []
        self.others: list[FoundFile] = []

    def add(self, file: FoundFile) -> None:
        """Add a file of the folder."""
        key = _without_suffix(file.path, self.suffix)
        longer = len(self.image_suffix) > len(self.suffix)
        is_image = longer and _without_suffix(file.path, self.image_suffix) is not None
        if key is None or is_image:
            self.others.append(file)
        elif file.fault:
            self.faults.append(file)
        elif key in self.files:
            reason = f"is a mask of the same name as {self.files[key]}; remove one of them"
            self.faults.append(FoundFile(file.path, reason))
        else:
            self.files[key] = file.path


def _without_suffix(path: str, suffix: str) -> str | None:
    """Return a path without the suffix, in lower or upper case; None if it does not end with it.

    Some systems store an accented letter as two characters; in the result it is one.
    """
    found = path.lower().endswith(suffix.lower())
    return normalize("NFC", path[: -len(suffix)]) if found else None


def _report_others(folder: Path, others: Sequence[FoundFile | str], key: str, end: object) -> None:
    if others:
        names = shortened(file if isinstance(file, str) else file.path for file in others)
        log.info(
            "%s: %d files do not end with data.%s=%s and are not used (%s)",
            folder, len(others), key, end, names,
        )  # fmt: skip
