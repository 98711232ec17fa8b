"""From folders of images and label maps, Parquet files or the hub to pairs that are still encoded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import BadRow, DataError
from datamodules.image_decoding import SUFFIXES
from datamodules.image_rows import EncodedImage, content_of, digest_of, visible_files
from datamodules.tables import Row, read_rows


@dataclass(frozen=True)
class EncodedScene:
    """An image with its label map, before decoding.

    Attributes:
        image: The image; its `label` says nothing.
        annotation: The label map's file, or its content.
        annotation_name: What a person knows the label map by.
    """

    image: EncodedImage
    annotation: bytes | Path
    annotation_name: str

    @property
    def index(self) -> int:
        """Row in the split's file, from 0; in a folder the image's place among its files."""
        return self.image.index

    def digests(self) -> tuple[str, str]:
        """What tells two scenes apart: of the image, and of the label map."""
        return self.image.digest(), digest_of(self.annotation)

    def annotation_fault(self, split: str, reason: str) -> BadRow:
        """This scene's label map as a bad row."""
        name = self.image.file if self.image.row is not None else self.annotation_name
        return BadRow(split, name, self.image.row, None, f"the label map {reason}" if self.image.row is not None else reason)


@dataclass(frozen=True)
class SceneReader:
    """Where images and their label maps are found.

    Attributes:
        images, annotations: Folders beside each other, with the same names in both.
        annotation_suffix: What a label map's name ends in where its image's has `.jpg`.
        image_column, annotation_column: Columns of a Parquet file.
    """

    images: str
    annotations: str
    annotation_suffix: str
    image_column: str
    annotation_column: str

    def read(self, path: Path, split: str) -> Iterator[EncodedScene | BadRow]:
        """Read a split.

        Args:
            path: `<root>/<images>/<name>`, a folder, or a Parquet file.
            split: Named in bad rows.

        Yields:
            Scenes and bad rows in order.

        Raises:
            DataError: If it is neither, or there is no folder of label maps for it.
        """
        if path.is_dir():
            yield from self._pairs(path, self.annotations_beside(path), split)
        elif path.suffix.lower() == ".parquet":
            rows = (row for row in read_rows(path, [self.image_column, self.annotation_column]) if isinstance(row, Row))
            yield from self.from_rows(rows, path.name, split)
        else:
            msg = f"{path}: scenes are read from a folder of images beside one of label maps, or from a .parquet file"
            raise DataError(msg)

    def from_rows(self, rows: Iterator[Row], file: str, split: str) -> Iterator[EncodedScene | BadRow]:
        """Scenes of a table's rows; both cells are bytes, or mappings with `bytes` as the hub has them."""
        for row in rows:
            image, annotation = (content_of(row.values.get(c)) for c in (self.image_column, self.annotation_column))
            if image is None or annotation is None:
                empty = self.image_column if image is None else self.annotation_column
                yield BadRow(split, file, row.index + 1, None, f"column '{empty}' holds no image bytes")
            else:
                number = row.index + 1
                yield EncodedScene(EncodedImage(row.index, image, 0, file, number), annotation, f"{file}, row {number}")

    def annotation_of(self, image: Path, images: Path, annotations: Path) -> Path:
        """Where the label map of an image belongs.

        Args:
            image: The image's file.
            images: The folder that it is found in.
            annotations: The folder of the label maps.
        """
        relative = image.relative_to(images)
        return annotations / relative.with_name(relative.stem + self.annotation_suffix)

    def annotations_beside(self, images: Path) -> Path:
        """The folder of label maps that belongs to a folder of images."""
        parts, name = list(images.parts), Path(self.images).parts
        for start in range(len(parts) - len(name), -1, -1):
            if tuple(parts[start : start + len(name)]) == name:
                return Path(*parts[:start], self.annotations, *parts[start + len(name) :])
        msg = f"{images} stands in no folder called {self.images}, so its label maps cannot be found"
        raise DataError(msg)

    def _pairs(self, images: Path, annotations: Path, split: str) -> Iterator[EncodedScene | BadRow]:
        if not annotations.is_dir():
            msg = f"{annotations.resolve()}: no such folder, which should hold the label maps of {images.name}"
            raise DataError(msg)
        named: set[Path] = set()
        for index, file in enumerate(visible_files(images)):
            shown = f"{self.images}/{images.name}/{file.relative_to(images).as_posix()}"
            if file.suffix.lower() not in SUFFIXES:
                reason = f"'{file.suffix}' is no kind of image; known are {', '.join(SUFFIXES)}"
                yield BadRow(split, shown, None, None, reason)
                continue
            annotation = self.annotation_of(file, images, annotations)
            expected = f"{self.annotations}/{images.name}/{annotation.relative_to(annotations).as_posix()}"
            if annotation in named:
                yield BadRow(split, shown, None, None, f"another image of that name has the label map {expected} already")
            elif annotation.is_file():
                named.add(annotation)
                yield EncodedScene(EncodedImage(index, file, 0, shown, None), annotation, expected)
            else:
                yield BadRow(split, shown, None, None, f"has no label map: there is no {expected}")
        for stray in visible_files(annotations):
            if stray.name.endswith(self.annotation_suffix) and stray not in named:
                shown = f"{self.annotations}/{images.name}/{stray.relative_to(annotations).as_posix()}"
                yield BadRow(split, shown, None, None, f"is the label map of no image in {self.images}/{images.name}")
