"""Rows of CSV, TSV, JSONL and Parquet files, one at a time, with what is wrong with each.

A stray quote makes a CSV parser swallow the rows up to the next quote. Such a row is told apart
from a text of several lines by its single lines: where one is a whole row by itself, rows were
swallowed. Reading goes on behind the line of the stray quote.
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


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        index: Position among the data rows, from 0, bad rows counted.
        line: Line in the file, from 1; None for Parquet.
        values: Column -> value; text from CSV, any JSON or Arrow scalar elsewhere.
    """

    index: int
    line: int | None
    values: dict[str, Any]


def read_rows(
    path: Path,
    needed: Sequence[str],
    is_whole_row: Callable[[dict[str, str]], bool] = lambda _: False,
    split: str = "",
    advice: str = COLUMN_ADVICE,
) -> Iterator[Row | BadRow]:
    """Read a table row by row.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file.
        needed: Columns that have to be there.
        is_whole_row: Whether a line inside a quoted text is a row by itself, swallowed by a stray
            quote.
        split: Named in bad rows.
        advice: What to do where a column is missing.

    Yields:
        Rows and bad rows in the file's order.

    Raises:
        DataError: If the file as a whole cannot be read: empty, no such column, unknown format.
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
        yield from _CsvReader(path, needed, is_whole_row, split, advice).rows()


def check_columns(
    path: Path, columns: Sequence[str], needed: Sequence[str], advice: str = COLUMN_ADVICE
) -> None:
    """Raise `DataError` where a needed column is missing or a name stands twice."""
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
    def __init__(
        self,
        path: Path,
        needed: Sequence[str],
        is_whole_row: Callable[[dict[str, str]], bool],
        split: str,
        advice: str,
    ) -> None:
        self.path, self.needed, self.is_whole_row, self.split, self.advice = (
            path,
            needed,
            is_whole_row,
            split,
            advice,
        )
        self.delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        self.pending: deque[str] = deque()
        self.used: list[str] = []

    def rows(self) -> Iterator[Row | BadRow]:
        with open_text(self.path) as self.lines:
            header, _ = self._record()
            if not header:
                msg = f"{self.path} has no header; the first line names the columns {', '.join(self.needed)}"
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
        """The next record's fields, and what the parser found wrong; `used` holds its lines."""
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
        if len(self.used) > 1 and self._swallows(header):
            return f"a stray quote swallows the {len(self.used) - 1} lines that follow"
        if len(fields) != len(header):
            return f"has {len(fields)} fields where the header has {len(header)}"
        return unreadable("".join(fields))

    def _swallows(self, header: list[str]) -> bool:
        """Whether rows stand inside the record.

        Either a later line with paired quotes is a row, or the first and the last line both are
        once their quotes are taken away: then each has one stray quote.
        """
        paired = [
            row for line in self.used[1:] if line.count('"') % 2 == 0 for row in self._parsed(line)
        ]
        ends = [
            line.replace('"', "").rstrip("\r\n").split(self.delimiter)
            for line in (self.used[0], self.used[-1])
        ]

        def whole(fields: list[str]) -> bool:
            return len(fields) == len(header) and self.is_whole_row(
                dict(zip(header, fields, strict=True))
            )

        return any(map(whole, paired)) or all(map(whole, ends))

    def _parsed(self, line: str) -> list[list[str]]:
        try:
            return list(csv.reader([line], delimiter=self.delimiter))
        except csv.Error:
            return []


def unreadable(text: str) -> str:
    """What is wrong with the bytes of a text, or an empty string."""
    for character in text:
        if "\udc80" <= character <= "\udcff":
            return f"is not UTF-8: byte 0x{ord(character) - 0xDC00:02X}"
        if "\ud800" <= character <= "\udfff":
            return f"holds half a character: surrogate U+{ord(character):X}"
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
                fault = f"is no JSON object but {type(values).__name__}"
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
        msg = f"{path} is no readable Parquet file: {error}"
        raise DataError(msg) from error
    check_columns(path, file.schema_arrow.names, needed, advice)
    index = 0
    for batch in file.iter_batches(batch_size=4096):
        for values in batch.to_pylist():
            yield Row(index, None, values)
            index += 1
