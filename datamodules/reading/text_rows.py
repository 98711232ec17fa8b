"""Labelled texts from the rows of a table, with checks of each row."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.reading.encodings import open_text
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.labels import LabelReader
from datamodules.reading.tables import COLUMN_ADVICE, Row, read_rows, unreadable

log = logging.getLogger(__name__)


@dataclass
class TextSplit:
    """The usable rows of a split.

    Attributes:
        indices: Row of each text in the file, from 0.
        texts: Texts as in the file.
        labels: Label of each text; see `LabelReader`.
    """

    indices: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self) -> Iterable[tuple[int, str, Any]]:
        """Return row, text and label of each sample; the dataset's fingerprint covers them."""
        return zip(self.indices, self.texts, self.labels, strict=True)

    def sample_keys(self) -> list[str]:
        """Return the texts, without surrounding whitespace."""
        return [text.strip() for text in self.texts]

    def name_of(self, key: str) -> str:
        """Return the text itself."""
        return key

    def take(self, positions: Sequence[int]) -> "TextSplit":
        """Return a split with the rows at these positions."""
        return TextSplit(
            [self.indices[p] for p in positions],
            [self.texts[p] for p in positions],
            [self.labels[p] for p in positions],
        )


@dataclass(frozen=True)
class RowReader:
    """Reader of labelled texts; it checks each row.

    Attributes:
        text_column: Name of the text column.
        labels: Reader of the labels.
        id_column: Column whose values must be unique, if any.
    """

    text_column: str
    labels: LabelReader
    id_column: str | None

    def columns(self) -> list[str]:
        """Return the columns that are read."""
        named = (self.text_column, *self.labels.columns, self.id_column)
        return [column for column in named if column is not None]

    def is_complete_row(self, row: Mapping[str, str]) -> bool:
        """Return whether a line inside a quoted text is a complete row: its label is sound."""
        return self.labels.is_complete(row)

    def read(
        self, rows: Iterable[Row | BadRow], file: str, split: str
    ) -> tuple[TextSplit, list[BadRow]]:
        """Separate usable rows from bad rows.

        Args:
            rows: Rows of one file.
            file: Name of the file.
            split: Name of the split.

        Returns:
            The split with the usable rows, and the bad rows in order.

        Raises:
            DataError: If there are no rows.
        """
        good, bad = TextSplit(), []
        seen: dict[str, int] = {}
        for row in rows:
            if isinstance(row, BadRow):
                bad.append(row)
                continue
            text = row.values.get(self.text_column)
            label, reason = self.labels.read(row.values)
            reason = text_fault(text, self.text_column) or reason or self._repeated_id(row, seen)
            if reason:
                bad.append(BadRow(split, file, row.index + 1, row.line, reason))
                continue
            good.indices.append(row.index)
            good.texts.append(str(text))
            good.labels.append(label)
        if not good.texts and not bad:
            msg = (
                f"{file} has a header and no rows; "
                "add rows to it, or name another file in data.files"
            )
            raise DataError(msg)
        return good, bad

    def _repeated_id(self, row: Row, seen: dict[str, int]) -> str:
        if self.id_column is None:
            return ""
        identifier = str(row.values.get(self.id_column))
        first = seen.setdefault(identifier, row.index)
        return (
            ""
            if first == row.index
            else f"{self.id_column} '{identifier}' is already in row {first + 1}"
        )


def text_fault(text: object, column: str) -> str:
    """Return why a value cannot be used as a text, or an empty string."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return f"column '{column}' is empty"
    if not isinstance(text, str):
        return f"column '{column}' holds {text!r}, which is {type(text).__name__}, not text"
    return unreadable(text)


def text_rows(path: Path, column: str, advice: str = COLUMN_ADVICE) -> Iterator[Row | BadRow]:
    """Read texts without labels.

    After the last row, a warning reports texts of a CSV file that seem to contain rows.

    Args:
        path: A .txt file with one text per line, or a table.
        column: Text column of a table; lines of a .txt file become values of this column too.
        advice: Next step for the user if the table has no such column.

    Yields:
        Rows and bad rows in the file's order.

    Raises:
        DataError: If the file cannot be read at all.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        yield from _lines(path, column)
        return
    suspects = []
    for row in read_rows(path, [column], advice=advice):
        if suffix == ".csv" and isinstance(row, Row) and _may_hold_rows(row, column):
            suspects.append(row.index + 1)
        yield row
    if suspects:
        log.warning(
            "%d texts span lines that look like rows, first in row %d; check for stray quotes",
            len(suspects),
            suspects[0],
        )


def _lines(path: Path, column: str) -> Iterator[Row | BadRow]:
    if path.stat().st_size == 0:
        msg = f"{path} is empty; write one text per line"
        raise DataError(msg)
    with open_text(path) as lines:
        for index, line in enumerate(lines):
            if line.strip():
                yield Row(index, index + 1, {column: line.rstrip("\r\n")})
            else:
                yield BadRow("", path.name, index + 1, None, "the line is empty")


def _may_hold_rows(row: Row, column: str) -> bool:
    """Return whether a later line of the text has as many commas as a row.

    A pair of stray quotes may have merged several rows.
    """
    commas = len(row.values) - 1
    return commas > 1 and any(
        line.count(",") == commas for line in str(row.values[column]).splitlines()[1:]
    )


def usable_rows(
    rows: Iterable[Row | BadRow], column: str, file: str
) -> tuple[list[Row], list[BadRow]]:
    """Separate rows with a usable text from bad rows."""
    good, bad = [], []
    for row in rows:
        reason = "" if isinstance(row, BadRow) else text_fault(row.values.get(column), column)
        if isinstance(row, BadRow):
            bad.append(row)
        elif reason:
            bad.append(BadRow("", file, row.index + 1, row.line, reason))
        else:
            good.append(row)
    return good, bad
