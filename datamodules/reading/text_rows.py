"""Labelled texts from the rows of a table, with checks of each row."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.reading.errors import EMPTY_LINE, MARK, BadRow, DataError, check_count
from datamodules.reading.formats import TableFormat, find_format
from datamodules.reading.labels import LabelReader
from datamodules.reading.progress import tracked
from datamodules.reading.rows import COLUMN_ADVICE, Row, key_fault, unreadable
from datamodules.reading.splits import Groups
from datamodules.reading.tables import read_rows
from datamodules.reading.texts import Texts

_CHUNK = 65_536  # labels that are Python objects at a time
_NO_LINE = 0  # lines of a file count from 1


@dataclass
class TextSplit:
    """The usable rows of a split.

    Attributes:
        indices: Row of each text in the file, from 0, [N] int64, ascending.
        texts: Texts as in the file.
        labels: Label of each text, [N] int64 or float32, or [N, K] float32; see `LabelReader`.
        groups: Group of each text, [N] int64; texts of one group stay in one split.
    """

    indices: npt.NDArray[np.int64]
    texts: Texts
    labels: npt.NDArray[Any]
    groups: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self) -> Iterable[tuple[int, str, Any]]:
        """Return row, text and label of each sample; the dataset's fingerprint covers them."""
        values = zip(self.indices, self.texts, self.labels, strict=True)
        return ((int(index), text, label.tolist()) for index, text, label in values)

    def sample_keys(self) -> Iterable[str]:
        """Return the texts, without surrounding whitespace."""
        return (text.strip() for text in self.texts)

    def name_of(self, key: str) -> str:
        """Return the text itself."""
        return key

    def take(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> "TextSplit":
        """Return a split with the rows at these positions."""
        chosen = np.asarray(positions, dtype=np.int64)
        texts = self.texts.take(chosen)
        groups = None if self.groups is None else self.groups[chosen]
        return TextSplit(self.indices[chosen], texts, self.labels[chosen], groups)

    def texts_of(self, indices: Sequence[int]) -> list[str]:
        """Return the texts of these rows in the file."""
        return [self.texts[p] for p in np.searchsorted(self.indices, indices).tolist()]


@dataclass(frozen=True)
class RowReader:
    """Reader of labelled texts; it checks each row.

    Attributes:
        text_column: Name of the text column.
        labels: Reader of the labels.
        id_column: Column whose values must be unique, if any.
        group_column: Column whose equal values stay in one split, if any.
    """

    text_column: str
    labels: LabelReader
    id_column: str | None
    group_column: str | None = None

    def columns(self) -> list[str]:
        """Return the columns that are read."""
        named = (self.text_column, *self.labels.columns, self.id_column, self.group_column)
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
        indices, texts, labels, bad = array("q"), Texts(), _Labels(), []
        lines, identifiers = array("q"), Texts()
        groups = Groups()
        count = 0
        for row in tracked(rows, f"reading {file}"):
            count = row.number
            if isinstance(row, BadRow):
                bad.append(row)
                continue
            text = row.values.get(self.text_column)
            label, reason = self.labels.read(row.values)
            reason = text_fault(text, self.text_column) or reason
            reason = reason or key_fault(row, self.id_column)
            reason = reason or key_fault(row, self.group_column)
            if reason:
                bad.append(BadRow(split, file, row.index + 1, row.line, reason))
                continue
            indices.append(row.index)
            texts.append(str(text))
            labels.append(label)
            if self.id_column is not None:
                lines.append(row.line or _NO_LINE)
                identifiers.append(str(row.values.get(self.id_column)))
            if self.group_column is not None:
                groups.append(row.values.get(self.group_column))
        good = TextSplit(np.array(indices, np.int64), texts, labels.array(), groups.array())
        repeated = identifiers.repetitions()
        if repeated:
            kept = np.ones(len(good), dtype=bool)
            kept[list(repeated)] = False
            good = good.take(np.flatnonzero(kept))
            bad += [
                BadRow(
                    split,
                    file,
                    indices[position] + 1,
                    lines[position] or None,
                    f"{self.id_column} '{identifiers[position]}' is already in row "
                    f"{indices[first] + 1}",
                )
                for position, first in repeated.items()
            ]
            bad.sort(key=lambda row: row.number)
        check_count(file, count, len(good), len(bad))
        if not count:
            header = "a header and " if file.lower().endswith((".csv", ".tsv")) else ""
            msg = f"{file} has {header}no rows; add rows to it"
            raise DataError(msg)
        return good, bad


class _Labels:
    """Labels of one type, as an array."""

    def __init__(self) -> None:
        self.parts: list[npt.NDArray[Any]] = []
        self.last: list[Any] = []

    def append(self, label: Any) -> None:  # noqa: ANN401 - see `LabelReader`
        self.last.append(label)
        if len(self.last) == _CHUNK:
            self._flush()

    def array(self) -> npt.NDArray[Any]:
        """Return all labels, [N] or [N, K]; a batch has them in the same type."""
        if self.last or not self.parts:
            self._flush()
        return np.concatenate(self.parts)

    def _flush(self) -> None:
        values = np.asarray(self.last)
        is_class = np.issubdtype(values.dtype, np.integer) or not self.last
        self.parts.append(values.astype(np.int64 if is_class else np.float32))
        self.last = []


def text_fault(text: object, column: str) -> str:
    """Return why a value cannot be used as a text, or an empty string."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return f"column '{column}' is empty"
    if not isinstance(text, str):
        return f"column '{column}' holds {text!r}, which is {type(text).__name__}, not text"
    return unreadable(text)


def text_rows(
    path: Path,
    column: str,
    advice: str = COLUMN_ADVICE,
    table_format: TableFormat = TableFormat(),
) -> Iterator[Row | BadRow]:
    """Read texts without labels.

    Args:
        path: A .txt file with one text per line, or a table.
        column: Text column of a table; lines of a .txt file become values of this column too.
        advice: Next step for the user if the table has no such column.
        table_format: Encoding, delimiter and quoting of a text file.

    Yields:
        Rows and bad rows in the file's order.

    Raises:
        DataError: If the file cannot be read at all.
    """
    if path.suffix.lower() == ".txt":
        yield from _lines(path, column, table_format)
    else:
        yield from read_rows(path, [column], advice=advice, table_format=table_format)


def _lines(path: Path, column: str, table_format: TableFormat) -> Iterator[Row | BadRow]:
    if path.stat().st_size == 0:
        msg = f"{path} is empty; give a file with at least one line"
        raise DataError(msg)
    found = find_format(path, [], table_format)
    with found.open(path) as lines:
        for index, line in enumerate(lines):
            fault = found.fault(line) if line.strip() else EMPTY_LINE
            if line.startswith("\ufeff"):
                fault = MARK
            yield (
                BadRow("", path.name, index + 1, index + 1 if line.strip() else None, fault)
                if fault
                else Row(index, index + 1, {column: line.rstrip("\r\n")})
            )


def usable_rows(
    rows: Iterable[Row | BadRow], column: str, file: str
) -> tuple[list[Row], list[BadRow]]:
    """Separate rows with a usable text from bad rows."""
    good: list[Row] = []
    bad: list[BadRow] = []
    for row in rows:
        reason = "" if isinstance(row, BadRow) else text_fault(row.values.get(column), column)
        if isinstance(row, BadRow):
            bad.append(row)
        elif reason:
            bad.append(BadRow("", file, row.index + 1, row.line, reason))
        else:
            good.append(row)
    return good, bad
