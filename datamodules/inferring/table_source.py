"""A table of a split, in the dataset's folder or on the hub, as far as inference reads it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from datamodules.inferring.columns import Column, check_header
from datamodules.reading.encodings import detect_encoding
from datamodules.reading.errors import BadRow
from datamodules.reading.foreign import check_content
from datamodules.reading.formats import FoundFormat, TableFormat, find_format
from datamodules.reading.progress import tracked
from datamodules.reading.rows import Row, check_columns
from datamodules.reading.sources import hub_table
from datamodules.reading.tables import TEXT_SUFFIXES, read_rows

_SAMPLE = 2000  # rows from which the columns are known


@dataclass(frozen=True)
class LocalTable:
    """A table of a split in the dataset's folder.

    Attributes:
        path: The file.
        table_format: What the user set of its format.
    """

    path: Path
    table_format: TableFormat

    @property
    def name(self) -> str:
        """Its name, for messages."""
        return self.path.name

    def columns(self, needed: Sequence[str] = ()) -> list[Column]:
        """Return its columns with their values in the first rows.

        Args:
            needed: Columns that it must have.

        Raises:
            DataError: If it cannot be read.
        """
        found = _columns(self._rows(needed, None))
        if self.path.suffix.lower() in (".csv", ".tsv"):
            check_header(found, self.name)
        return found

    def class_names(self) -> dict[str, list[str]]:
        """Return no names: a file has no column of class labels as a dataset on the hub has."""
        return {}

    def values(self, needed: Sequence[str], column: str) -> Iterator[Any]:
        """Yield the values of a column in all rows that can be read.

        Args:
            needed: Columns that the table must have.
            column: One of them.
        """
        for row in tracked(self._rows(needed, [column]), f"labels of {self.name}"):
            yield row.values.get(column)

    def _rows(self, needed: Sequence[str], columns: Sequence[str] | None) -> Iterator[Row]:
        read = columns if self.path.suffix.lower() == ".parquet" else needed
        found = self._format(needed)
        rows = read_rows(self.path, needed, None, table_format=found, columns=read)
        return (row for row in rows if not isinstance(row, BadRow))

    def _format(self, needed: Sequence[str]) -> TableFormat | FoundFormat:
        """Return the format. A guessed encoding is reported when the rows are read for training."""
        if self.path.suffix.lower() not in TEXT_SUFFIXES:
            return self.table_format
        check_content(self.path)
        encoding = self.table_format.encoding or detect_encoding(self.path)
        return find_format(self.path, needed, replace(self.table_format, encoding=encoding))


@dataclass(frozen=True)
class HubSplit:
    """A split of a dataset on the hub.

    Attributes:
        hub: Name of the dataset.
        split: train, val or test.
    """

    hub: str
    split: str

    @property
    def name(self) -> str:
        """Its name, for messages."""
        return f"{self.hub}, {self.split}"

    def columns(self, needed: Sequence[str] = ()) -> list[Column]:
        """Return its columns with their values in the first rows; see `LocalTable.columns`."""
        table = hub_table(self.hub, self.split)
        check_columns(Path(f"{self.hub} on the hub, {self.split}"), table.columns, needed)
        return _columns(table.rows)

    def class_names(self) -> dict[str, list[str]]:
        """Return the names of the classes of each column that has numbers of classes."""
        return hub_table(self.hub, self.split).class_names

    def values(self, needed: Sequence[str], column: str) -> Iterator[Any]:
        """Yield the values of a column; see `LocalTable.values`."""
        table = hub_table(self.hub, self.split)
        check_columns(Path(f"{self.hub} on the hub, {self.split}"), table.columns, needed)
        for row in tracked(table.rows, f"labels of {self.name}"):
            yield row.values.get(column)


def _columns(rows: Iterable[Row]) -> list[Column]:
    values: dict[str, list[Any]] = {}
    for row in islice(rows, _SAMPLE):
        for name, value in row.values.items():
            values.setdefault(name, []).append(value)
    return [
        Column(name, [value for value in given if value is not None and value != ""])
        for name, given in values.items()
    ]
