"""From folders of images and masks, Parquet files or the hub to pairs that are still encoded."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.images.decoding import SUFFIXES
from datamodules.images.rows import EncodedImage, content_of, digest_of, visible_files
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.tables import Row, read_rows

PARQUET = ".parquet"
SPLIT = "{split}"  # in the name of a folder: what a split is called


@dataclass(frozen=True)
class EncodedPair:
    """An image with its mask, before decoding.

    Attributes:
        image: The image; its `label` says nothing.
        annotation: The mask's file, or its content.
        annotation_name: What a person knows the mask by.
    """

    image: EncodedImage
    annotation: bytes | Path
    annotation_name: str

    @property
    def index(self) -> int:
        """Row in the split's file, from 0; in a folder the image's place among its files."""
        return self.image.index

    def digests(self) -> tuple[str, str]:
        """What tells two pairs apart: of the image, and of the mask."""
        return self.image.digest(), digest_of(self.annotation)

    def annotation_fault(self, split: str, reason: str) -> BadRow:
        """This pair's mask as a bad row."""
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
    """Where images and their masks are found.

    Attributes:
        images, annotations: Folders in a dataset's folder, `{split}` standing for what a split is
            called.
        image_suffix: What the images' names end in, if that is more than a kind of file; others are
            passed over.
        annotation_suffix: What a mask's name has instead of the image's suffix.
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
            name: What the split is called in it: a Parquet file, or what `{split}` stands for.
            split: Named in bad rows.

        Yields:
            EncodedPairs and bad rows in order.

        Raises:
            DataError: If there are no folders, or none of masks.
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
                msg = f"{folder.resolve()}: no such folder, which should hold the {what} of {name}; or give a .parquet file"
                raise DataError(msg)
        yield from self._pairs(root, path, annotations, split)

    def place(self, name: str) -> str:
        """Where the images of a split are, from the dataset's folder on."""
        return name if name.endswith(PARQUET) else self.images.replace(SPLIT, name)

    def from_rows(
        self, rows: Iterator[Row], file: str, split: str
    ) -> Iterator[EncodedPair | BadRow]:
        """EncodedPairs of a table's rows; both cells are bytes, or mappings with `bytes` as the hub has them."""
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
        """Where the mask of an image belongs.

        Args:
            image: The image's file.
            images: The folder that it is found in.
            annotations: The folder of the masks.
        """
        name = image.name.removesuffix(self.image_suffix) if self.image_suffix else image.stem
        return annotations / image.relative_to(images).with_name(name + self.annotation_suffix)

    def annotations_beside(self, images: Path) -> Path | None:
        """The folder of masks that belongs to a folder of images or a folder in it, where the layout has one."""
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
                reason = f"'{file.suffix}' is no kind of image; known are {', '.join(SUFFIXES)}"
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
                    f"is the mask of no image in {where}",
                )
