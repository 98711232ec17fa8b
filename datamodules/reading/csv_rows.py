"""Reader of one CSV or TSV file that reports bad rows and continues after them.

A stray quote makes a CSV parser read all rows up to the next quote as one text. A text of several
lines looks the same. The two are distinguished by their lines: if a line is a row of its own, the
quote is a stray one. Reading then continues after the line with the stray quote.
"""

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from datamodules.reading.encodings import open_text
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.formats import DELIMITERS, FoundFormat
from datamodules.reading.rows import Row, check_columns, column_names

csv.field_size_limit(2**31 - 1)  # `fault` has the limit, and reports the row

_SAMPLE = 2_000  # lines from which the usual values of the columns are found
_LEAST = 3  # rows from which a value is usual
_MOST_VALUES = 20  # distinct values of a column with few values
_USUAL = 0.9  # least share of usual values


class CsvReader:
    """Reader of one CSV or TSV file.

    Attributes:
        taken: Lines taken from the file so far.
        pending: Lines to be read again after a stray quote.
        used: Lines of the current record.
    """

    def __init__(
        self,
        path: Path,
        found: FoundFormat,
        needed: Sequence[str],
        is_complete_row: Callable[[dict[str, str]], bool] | None,
        split: str,
        advice: str,
    ) -> None:
        self.path, self.found, self.needed = path, found, needed
        self.is_complete_row, self.split, self.advice = is_complete_row, split, advice
        advice = found.advice("quoting", "none")
        self.quotes_are_text = f"if quotes are part of the texts, {advice}"
        self.taken = 0
        self.pending: deque[str] = deque()
        self.used: list[str] = []

    def rows(self) -> Iterator[Row | BadRow]:
        """Yield the rows in the file's order; see `read_rows`."""
        with open_text(self.path, self.found.encoding) as self.lines:
            self.records = self.found.reader(self._take())
            if self.found.has_separator_line:
                next(self.records)
            header = self._header()
            columns = column_names(header)
            check_columns(self.path, columns, self.needed, self._advice(columns))
            self.swallowing = _Swallowing(self.path, self.found, columns, self.is_complete_row)
            line, index = self.taken + 1, 0
            while True:
                fields, fault = self._record()
                if not self.used:
                    break
                start, line = line, line + len(self.used)
                if not fault and not fields:
                    continue  # an empty line
                fault = fault or self._fault(fields, header)
                if fault:
                    line = start + 1
                    self._read_again(self.used[1:])
                    yield BadRow(self.split, self.path.name, index + 1, start, fault)
                else:
                    yield Row(index, start, dict(zip(columns, fields, strict=True)))
                index += 1
            if line - 1 != self.taken:
                msg = f"{self.path}: {self.taken} lines, but the rows have {line - 1}"
                raise RuntimeError(msg)

    def _header(self) -> list[str]:
        fields, fault = self._record()
        if fault:
            msg = f"{self.path}, line 1: the header is unreadable: {fault}; correct it"
            raise DataError(msg)
        if not fields:
            columns = ", ".join(self.needed)
            msg = f"{self.path} has no header; name the columns {columns} in the first line"
            raise DataError(msg)
        fault = self.found.fault("".join(fields))
        if fault:
            msg = f"{self.path}: the header {fault}"
            raise DataError(msg)
        return fields

    def _advice(self, columns: Sequence[str]) -> str:
        """Return the advice for a missing column; the delimiter may be wrong."""
        if not any(delimiter in name for name in columns for delimiter in DELIMITERS):
            return self.advice
        return (
            f"{self.advice}; it was read with the delimiter {self.found.delimiter!r}: "
            f"if that is wrong, {self.found.advice('delimiter', '...')}"
        )

    def _take(self) -> Iterator[str]:
        while self.pending:
            line = self.pending.popleft()
            self.used.append(line)
            yield line
        for line in self.lines:
            self.taken += 1
            self.used.append(line)
            yield line

    def _read_again(self, lines: Sequence[str]) -> None:
        self.pending.extendleft(reversed(lines))
        self.records = self.found.reader(self._take())

    def _record(self) -> tuple[list[str], str]:
        """Return the fields of the next record and the parser's error; its lines are in `used`."""
        self.used = []
        try:
            return next(self.records, []), ""
        except csv.Error as error:
            if "new-line character" in str(error):
                return [], "has a carriage return outside of quotes; put the field into quotes"
            never_closed = "unexpected end of data" in str(error)
            return [], (
                f"a stray quote is never closed; {self.quotes_are_text}"
                if never_closed
                else f"its quotes do not pair up ({error}); {self.quotes_are_text}"
            )

    def _fault(self, fields: list[str], header: list[str]) -> str:
        if len(self.used) > 1:
            swallowed = self.swallowing.fault(self.used, self.quotes_are_text)
            if swallowed:
                return swallowed
        if len(fields) != len(header):
            return f"has {len(fields)} fields where the header has {len(header)}"
        if fields == header:
            return "repeats the header; remove it"
        return self.found.fault("".join(fields))


class _Swallowing:
    """Decides whether a record of several lines contains rows that a stray quote merged."""

    def __init__(
        self,
        path: Path,
        found: FoundFormat,
        columns: Sequence[str],
        is_complete_row: Callable[[dict[str, str]], bool] | None,
    ) -> None:
        self.found, self.columns, self.is_complete_row = found, columns, is_complete_row
        with open_text(path, found.encoding) as lines:
            sample = [found.fields(line) for line in islice(lines, _SAMPLE) if _is_paired(line)]
        rows = [fields for fields in sample[1:] if len(fields) == len(columns)]
        self.usual = [_usual_values(values) for values in zip(*rows, strict=True)]

    def fault(self, lines: Sequence[str], advice: str) -> str:
        """Return the fault of a record with these lines, or an empty string.

        The quote is stray if a later line with paired quotes is a row, or if the first and the last
        line are rows after their quotes are removed: each has one stray quote. If no column shows
        what a row is, and each line may be one, the user has to decide.
        """
        paired = [self.found.fields(line) for line in lines[1:] if _is_paired(line)]
        ends = [
            line.replace('"', "").rstrip("\r\n").split(self.found.delimiter)
            for line in (lines[0], lines[-1])
        ]
        if any(map(self._is_row, paired)) or all(map(self._is_row, ends)):
            return f"a stray quote swallows the {len(lines) - 1} lines that follow; {advice}"
        if self.found.quoting_is_set or self.is_complete_row or any(self.usual):
            return ""
        inner = [self.found.fields(line) for line in lines[1:-1]]
        if len(self.columns) == 1 or all(
            len(fields) == len(self.columns) for fields in (*ends, *inner)
        ):
            return (
                f"its quote closes {len(lines) - 1} lines later, and each line may be a row; "
                f"{advice}; if the text has several lines, {self.found.advice('quoting', 'csv')}"
            )
        return ""

    def _is_row(self, fields: list[str]) -> bool:
        if len(fields) != len(self.columns):
            return False
        judged = [
            is_usual(value)
            for is_usual, value in zip(self.usual, fields, strict=False)
            if is_usual is not None
        ]
        if judged and all(judged):
            return True
        values = dict(zip(self.columns, fields, strict=True))
        return self.is_complete_row is not None and self.is_complete_row(values)


def _is_paired(line: str) -> bool:
    return line.count('"') % 2 == 0


def _usual_values(values: Sequence[str]) -> Callable[[str], bool] | None:
    """Return a test for the usual values of a column, or None if any text may be one.

    A column has few values, as labels, or its values have digits and no blanks, as numbers, dates
    and identifiers.
    """
    if len(values) < _LEAST:
        return None
    if sum(map(_is_code, values)) >= _USUAL * len(values):
        return _is_code
    known = set(values)
    few = len(known) <= min(_MOST_VALUES, len(values) // _LEAST)
    return known.__contains__ if few else None


def _is_code(value: str) -> bool:
    return any(map(str.isdigit, value)) and len(value.split()) == 1
