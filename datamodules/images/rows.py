"""Readers of image folders and Parquet files that return labelled, encoded images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any
from unicodedata import normalize

from datamodules.images.content import digest_of, file_fault, image_source, stored_path
from datamodules.images.listing import Listing
from datamodules.images.places import LIST, SAMPLE, place_of, read_list
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.formats import FoundFormat, TableFormat
from datamodules.reading.labels import ClassLabels, LabelReader
from datamodules.reading.rows import COLUMN_ADVICE, Row, key_fault
from datamodules.reading.tables import SUFFIXES as TABLES
from datamodules.reading.tables import read_rows
from run_folders.errors import near_names, shortened


@dataclass(frozen=True)
class EncodedImage:
    """A labelled image before decoding.

    Attributes:
        index: Row in the split's file, from 0. In a folder, position among its files, sorted by
            class and then by name.
        source: The file, or its content.
        label: Label; see `LabelReader`. An image with a mask has 0.
        file: Name of the file, for messages.
        row: Row in that file, from 1; None for an image file.
        group: Value of the column that keeps images in one split; None without such a column.
    """

    index: int
    source: bytes | Path
    label: Any
    file: str
    row: int | None
    group: str | None = None

    @property
    def name(self) -> str:
        """Name by which the user recognises the image: its file, and its row if it has one."""
        return self.file if self.row is None else f"{self.file}, row {self.row}"

    def digest(self) -> str:
        """Return a digest of the content; see `digest_of`."""
        return digest_of(self.source)

    def fault(self, split: str, reason: str) -> BadRow:
        """Return this image as a bad row."""
        return BadRow(split, self.file, self.row, None, reason)


@dataclass(frozen=True)
class ImageReader:
    """Reader of labelled images from a folder, a table or the hub.

    Attributes:
        image_column: Column of the images in a table.
        labels: Reader of the labels in a table.
        class_names: Name of class 0, 1, ...; in an image folder, the names of the class folders.
        group_column: Column of a table whose equal values stay in one split, if any.
        root: The dataset's folder, in which the images of a table or list are.
    """

    image_column: str
    labels: LabelReader
    class_names: Sequence[str]
    group_column: str | None = None
    root: Path | None = None

    @property
    def columns(self) -> list[str]:
        """The columns that are read from a table."""
        groups = [] if self.group_column is None else [self.group_column]
        return [self.image_column, *self.labels.columns, *groups]

    def read(
        self,
        path: Path,
        split: str,
        advice: str = COLUMN_ADVICE,
        table_format: TableFormat | FoundFormat = TableFormat(),
    ) -> Iterator[EncodedImage | BadRow]:
        """Read a split from a folder of files `<path>/<class>/<image>`, a table or a list.

        Args:
            path: The folder or file; see `read_list` for a list.
            split: Split that bad rows name.
            advice: Next step for the user if a column is missing.
            table_format: Encoding, delimiter and quoting of a text file.

        Yields:
            Images and bad rows in order.

        Raises:
            DataError: If `path` is neither, or contains a folder that is not named after a class.
        """
        if path.is_dir():
            if self.group_column is not None:
                msg = (
                    f"data.group_column={self.group_column}: {path} is a folder, which has no "
                    f"columns; leave it out, or list the images in a table"
                )
                raise DataError(msg)
            self._check_one_class(path, "images in class folders")
            yield from self._from_folder(path, split)
        elif path.suffix.lower() == LIST:
            self._check_one_class(path, "images of a list")
            yield from self._from_list(path, split)
        elif path.suffix.lower() in TABLES:
            columns = self.columns
            rows = read_rows(
                path, columns, self.labels.is_complete, split, advice, table_format, columns
            )
            yield from self.from_rows(rows, path.name, split, path.parent)
        else:
            msg = (
                f"{path}: give a table ({', '.join(TABLES)}), a list ({LIST}), or a folder with "
                f"one folder of images per class"
            )
            raise DataError(msg)

    def _check_one_class(self, path: Path, what: str) -> None:
        if not isinstance(self.labels, ClassLabels):
            msg = (
                f"{path}: {what} have one class each; name a table in data.files, with the columns "
                f"{', '.join(self.labels.columns)}"
            )
            raise DataError(msg)

    def from_rows(
        self, rows: Iterable[Row | BadRow], file: str, split: str, folder: Path | None = None
    ) -> Iterator[EncodedImage | BadRow]:
        """Read the images of a table.

        Args:
            rows: Rows of the table. An image is bytes, a mapping with `bytes` (hub), or a path.
            file: Name of the table.
            split: Split that bad rows name.
            folder: Folder of the table; see `place_of` for the paths of images in it. None if there
                are no paths.
        """
        rows, suffix = iter(rows), ""
        if folder is not None:
            first = list(islice(rows, SAMPLE))
            rows = chain(first, rows)
            names = [row.values.get(self.image_column) for row in first if isinstance(row, Row)]
            folder, suffix = self._place([n for n in names if isinstance(n, str)], folder, split)
        for row in rows:
            if isinstance(row, BadRow):
                yield row
                continue
            label, reason = self.labels.read(row.values)
            if suffix and isinstance(row.values[self.image_column], str):
                row.values[self.image_column] = row.values[self.image_column].strip() + suffix
            source, fault = image_source(row.values, self.image_column, folder)
            reason = reason or key_fault(row, self.group_column)
            if fault or reason:
                yield BadRow(split, file, row.index + 1, row.line, fault or reason)
            else:
                group = None if self.group_column is None else str(row.values[self.group_column])
                yield EncodedImage(row.index, source, label, file, row.index + 1, group)

    def _place(self, names: Sequence[str], folder: Path, split: str) -> tuple[Path, str]:
        """Return the folder that names are relative to, and the suffix that they lack."""
        filled = [name for name in names if name.strip()]
        found = place_of(filled, folder, split, self.root) if filled else None
        return (folder, "") if found is None else (found.folder, found.suffix)

    def _from_list(self, path: Path, split: str) -> Iterator[EncodedImage | BadRow]:
        entries = list(read_list(path))
        names = [entry.path for entry in entries[:SAMPLE]]
        folder, suffix = self._place(names, path.parent, split)
        for index, entry in enumerate(entries):
            label, reason = self.labels.read({self.labels.columns[0]: entry.label})
            name = entry.path + suffix
            file = stored_path(folder / name)
            fault = file_fault(file)
            if fault or reason:
                reason = f"{fault} {file}" if fault else reason
                yield BadRow(split, path.name, index + 1, entry.line, reason)
            else:
                yield EncodedImage(index, file, label, name, None)

    def _from_folder(self, path: Path, split: str) -> Iterator[EncodedImage | BadRow]:
        listing = Listing()
        folders, strays = listing.top(path)
        folder_of = _by_name(path, folders)
        known = {normalize("NFC", name) for name in self.class_names}
        for name, given in folder_of.items():
            if name not in known:
                raise _unknown_class(path / given, self.class_names)
        above = f"{path.name}/" if path.name else ""
        for stray in strays:
            reason = stray.fault or "is not in a class folder, so its class is not known"
            yield BadRow(split, above + stray.path, None, None, reason)
        index = 0
        for label, name in enumerate(self.class_names):
            folder = folder_of.get(normalize("NFC", name))
            if folder is None:
                reason = "there is no folder for this class"
                yield BadRow(split, above + name, None, None, reason)
                continue
            before, inside = index, path / folder
            for file in listing.walk(inside):
                shown = f"{above}{folder}/{file.path}"
                if file.fault:
                    yield BadRow(split, shown, None, None, file.fault)
                else:
                    yield EncodedImage(index, inside / file.path, label, shown, None)
                index += 1
            if index == before:
                reason = "this class folder is empty"
                yield BadRow(split, above + folder, None, None, reason)
        listing.report(path)


def _by_name(path: Path, folders: Iterable[str]) -> dict[str, str]:
    """Return the name of each class -> its folder. Some systems store an umlaut as two characters.

    Raises:
        DataError: If two folders have the same name, with an umlaut as one and as two characters.
    """
    folder_of: dict[str, str] = {}
    for folder in folders:
        first = folder_of.setdefault(normalize("NFC", folder), folder)
        if first != folder:
            msg = (
                f"{path}: the folders {first!a} and {folder!a} are the same name in "
                f"two spellings of its accents; move their images into one of them"
            )
            raise DataError(msg)
    return folder_of


def _unknown_class(folder: Path, class_names: Sequence[str]) -> DataError:
    near = near_names(folder.name, class_names, count=1)
    hint = (
        f"; did you mean {near[0]}?" if near else f"; data.classes names {shortened(class_names)}"
    )
    return DataError(f"{folder}: no class is called '{folder.name}'{hint}")
