"""Readers of folders, Parquet files and the hub that return encoded images with encoded masks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.images.decoding import SUFFIXES
from datamodules.images.rows import EncodedImage, content_of, digest_of, visible_files
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.rows import Row
from datamodules.reading.tables import read_rows

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

    def read(self, root: Path, name: str, split: str) -> Iterator[EncodedPair | BadRow]:
        """Read a split.

        Args:
            root: The dataset's folder.
            name: A Parquet file, or the name that replaces `{split}`.
            split: Split that bad rows name.

        Yields:
            Pairs and bad rows in order.

        Raises:
            DataError: If the folder of images or of masks does not exist.
        """
        path = root / self.place(name)
        if name.endswith(PARQUET):
            rows = (
                row
                for row in read_rows(path, [self.image_column, self.annotation_column])
                if isinstance(row, Row)
            )
            yield from self.from_rows(rows, path.name, split)
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

    def place(self, name: str) -> str:
        """Return the file or folder of a split's images, relative to the dataset's folder."""
        return name if name.endswith(PARQUET) else self.images.replace(SPLIT, name)

    def from_rows(
        self, rows: Iterator[Row], file: str, split: str
    ) -> Iterator[EncodedPair | BadRow]:
        """Read the pairs of a table; images and masks are bytes, or mappings with `bytes` (hub)."""
        for row in rows:
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

    def annotation_of(self, image: Path, images: Path, annotations: Path) -> Path:
        """Return the path of an image's mask, which may not exist.

        Args:
            image: File of the image.
            images: Folder of the images.
            annotations: Folder of the masks.
        """
        name = image.name.removesuffix(self.image_suffix) if self.image_suffix else image.stem
        return annotations / image.relative_to(images).with_name(name + self.annotation_suffix)

    def annotations_for(self, images: Path) -> Path | None:
        """Return the folder of masks for a folder of images, or for a subfolder of one.

        None if the path does not match `images`, or the folder of masks does not exist.
        """
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
        return folder if folder.is_dir() and folder != images.resolve() else None

    def _pairs(
        self, root: Path, images: Path, annotations: Path, split: str
    ) -> Iterator[EncodedPair | BadRow]:
        named: set[Path] = set()
        files = [
            file
            for file in visible_files(images)
            if self.image_suffix is None or file.name.endswith(self.image_suffix)
        ]
        for index, file in enumerate(files):
            shown = file.relative_to(root).as_posix()
            if file.suffix.lower() not in SUFFIXES:
                reason = f"'{file.suffix}' is not an image format; known are {', '.join(SUFFIXES)}"
                yield BadRow(split, shown, None, None, reason)
                continue
            annotation = self.annotation_of(file, images, annotations)
            expected = annotation.relative_to(root).as_posix()
            if annotation in named:
                yield BadRow(
                    split,
                    shown,
                    None,
                    None,
                    f"another image of that name has the mask {expected} already",
                )
            elif annotation.is_file():
                named.add(annotation)
                yield EncodedPair(EncodedImage(index, file, 0, shown, None), annotation, expected)
            else:
                yield BadRow(split, shown, None, None, f"has no mask: there is no {expected}")
        for stray in visible_files(annotations):
            if stray.name.endswith(self.annotation_suffix) and stray not in named:
                where = images.relative_to(root).as_posix()
                yield BadRow(
                    split,
                    stray.relative_to(root).as_posix(),
                    None,
                    None,
                    f"is a mask without an image in {where}",
                )
