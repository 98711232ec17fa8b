"""Readers of CSV, TSV, JSONL and Parquet files that return rows and bad rows one at a time.

A stray quote makes a CSV parser read all rows up to the next quote as one text. A text of several
lines looks the same. The two are distinguished by their lines: if a line is a complete row, the
quote is a stray one. Reading then continues after the line with the stray quote.
"""

import csv
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.reading.encodings import open_text
from datamodules.reading.errors import BadRow, DataError

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
COLUMN_ADVICE = "set data.text_column, image_column or label_column (--column to predict)"


def other_columns(columns: Sequence[str]) -> str:
    """Return the advice for a table that a finished run reads, with the run's columns."""
    return f"the run reads the columns {', '.join(columns)}; rename those of the file"


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        index: Position among the data rows, from 0; bad rows are counted.
        line: Line in the file, from 1; None for Parquet and the hub.
        values: Column -> value; a text from CSV, any JSON or Arrow value from other files.
    """

    index: int
    line: int | None
    values: dict[str, Any]


def read_rows(
    path: Path,
    needed: Sequence[str],
    is_complete_row: Callable[[dict[str, str]], bool] = lambda _: False,
    split: str = "",
    advice: str = COLUMN_ADVICE,
) -> Iterator[Row | BadRow]:
    """Read a table row by row.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file.
        needed: Columns that the file must have.
        is_complete_row: Whether a line inside a quoted text is a complete row. A stray quote
            causes such lines.
        split: Split that bad rows name.
        advice: Next step for the user if a column is missing.

    Yields:
        Rows and bad rows in the file's order.

    Raises:
        DataError: If the file is empty, is damaged, has an unknown format or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        msg = f"{path}: cannot read '{suffix}' files; give one of {', '.join(SUFFIXES)}"
        raise DataError(msg)
    if path.stat().st_size == 0:
        msg = f"{path} is empty; it needs a header with the columns {', '.join(needed)}"
        raise DataError(msg)
    if suffix == ".parquet":
        yield from _read_parquet(path, needed, advice)
    elif suffix == ".jsonl":
        yield from _read_jsonl(path, needed, split, advice)
    else:
        yield from _CsvReader(path, needed, is_complete_row, split, advice).rows()


def check_columns(
    path: Path, columns: Sequence[str], needed: Sequence[str], advice: str = COLUMN_ADVICE
) -> None:
    """Raise `DataError` if a needed column is missing or a column name occurs twice."""
    fault = unreadable("".join(columns))
    if fault:
        msg = f"{path}: the header {fault}; save the file as UTF-8"
        raise DataError(msg)
    for column in needed:
        if column not in columns:
            shown = ", ".join(columns[:12])
            msg = f"{path}: no column '{column}'; it has {shown}; {advice}"
            raise DataError(msg)
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        msg = f"{path}: the header names '{twice}' {columns.count(twice)} times; rename all but one"
        raise DataError(msg)


class _CsvReader:
    """Reader of one CSV or TSV file.

    Attributes:
        pending: Lines to be read again after a stray quote.
        used: Lines of the current record.
    """

    def __init__(
        self,
        path: Path,
        needed: Sequence[str],
        is_complete_row: Callable[[dict[str, str]], bool],
        split: str,
        advice: str,
    ) -> None:
        self.path, self.needed, self.is_complete_row, self.split, self.advice = (
            path,
            needed,
            is_complete_row,
            split,
            advice,
        )
        self.delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        self.pending: deque[str] = deque()
        self.used: list[str] = []

    def rows(self) -> Iterator[Row | BadRow]:
        with open_text(self.path) as self.lines:
            header, fault = self._record()
            if fault:
                msg = f"{self.path}, line 1: the header is unreadable: {fault}; correct it"
                raise DataError(msg)
            if not header:
                columns = ", ".join(self.needed)
                msg = f"{self.path} has no header; name the columns {columns} in the first line"
                raise DataError(msg)
            check_columns(self.path, header, self.needed, self.advice)
            line, index = 1 + len(self.used), 0
            while True:
                fields, fault = self._record()
                if not self.used:
                    return
                start, line = line, line + len(self.used)
                if not fault and not fields:
                    continue  # an empty line
                fault = fault or self._fault(header, fields)
                if fault:
                    line = start + 1
                    self.pending.extendleft(reversed(self.used[1:]))
                    yield BadRow(self.split, self.path.name, index + 1, start, fault)
                else:
                    yield Row(index, start, dict(zip(header, fields, strict=True)))
                index += 1

    def _take(self) -> Iterator[str]:
        while True:
            line = self.pending.popleft() if self.pending else next(self.lines, None)
            if line is None:
                return
            self.used.append(line)
            yield line

    def _record(self) -> tuple[list[str], str]:
        """Return the fields of the next record and the parser's error; its lines are in `used`."""
        self.used = []
        try:
            return next(csv.reader(self._take(), strict=True, delimiter=self.delimiter), []), ""
        except csv.Error as error:
            never_closed = "unexpected end of data" in str(error)
            return (
                [],
                "a stray quote is never closed"
                if never_closed
                else f"its quotes do not pair up ({error})",
            )

    def _fault(self, header: list[str], fields: list[str]) -> str:
        if len(self.used) > 1 and self._contains_rows(header):
            return f"a stray quote swallows the {len(self.used) - 1} lines that follow"
        if len(fields) != len(header):
            return f"has {len(fields)} fields where the header has {len(header)}"
        return unreadable("".join(fields))

    def _contains_rows(self, header: list[str]) -> bool:
        """Return whether the record contains rows that a stray quote merged.

        There are two cases. Either a later line with paired quotes is a row. Or the first and the
        last line are rows after their quotes are removed: each has one stray quote.
        """
        paired = [
            row for line in self.used[1:] if line.count('"') % 2 == 0 for row in self._parsed(line)
        ]
        ends = [
            line.replace('"', "").rstrip("\r\n").split(self.delimiter)
            for line in (self.used[0], self.used[-1])
        ]

        def whole(fields: list[str]) -> bool:
            return len(fields) == len(header) and self.is_complete_row(
                dict(zip(header, fields, strict=True))
            )

        return any(map(whole, paired)) or all(map(whole, ends))

    def _parsed(self, line: str) -> list[list[str]]:
        try:
            return list(csv.reader([line], delimiter=self.delimiter))
        except csv.Error:
            return []


def unreadable(text: str) -> str:
    """Return why the characters of a text are invalid, or an empty string."""
    for character in text:
        if "\udc80" <= character <= "\udcff":
            return f"is not UTF-8: byte 0x{ord(character) - 0xDC00:02X}"
        if "\ud800" <= character <= "\udfff":
            return f"has an unpaired surrogate U+{ord(character):X}"
    return ""


def _read_jsonl(
    path: Path, needed: Sequence[str], split: str, advice: str
) -> Iterator[Row | BadRow]:
    index = 0
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            fault = unreadable(line)
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                values, fault = None, fault or f"is not JSON: {error.msg} at column {error.colno}"
            if not fault and not isinstance(values, dict):
                fault = f"is not a JSON object but {type(values).__name__}"
            if not fault and index == 0:
                check_columns(path, list(values), needed, advice)
            missing = [] if fault else [column for column in needed if column not in values]
            if missing:
                fault = f"has no '{missing[0]}'"
            yield (
                BadRow(split, path.name, index + 1, number, fault)
                if fault
                else Row(index, number, values)
            )
            index += 1


def _read_parquet(path: Path, needed: Sequence[str], advice: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        msg = f"{path} is not a readable Parquet file: {error}"
        raise DataError(msg) from error
    check_columns(path, file.schema_arrow.names, needed, advice)
    index = 0
    for batch in file.iter_batches(batch_size=4096):
        for values in batch.to_pylist():
            yield Row(index, None, values)
            index += 1
