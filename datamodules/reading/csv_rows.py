"""Reader of one CSV or TSV file that reports bad rows and continues after them.

A stray quote makes a CSV parser read all rows up to the next quote as one text. A text of several
lines looks the same. The two are distinguished by their lines: if a line is a row of its own, the
quote is a stray one. Reading then continues after the line with the stray quote.
"""

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from datamodules.reading.encodings import MAX_LINE, first_lines
from datamodules.reading.errors import EMPTY_LINE, MARK, BadRow, DataError
from datamodules.reading.formats import DELIMITERS, QUOTE_TWICE, FoundFormat
from datamodules.reading.rows import (
    Row,
    check_columns,
    column_names,
    report_empty_lines,
    spelled_as,
    unreadable,
)

csv.field_size_limit(2**31 - 1)  # `fault` has the limit, and reports the row

_NEVER_CLOSED = "unexpected end of data"  # the csv module's words
_SAMPLE = 2_000  # lines from which the values of the columns are known
_LEAST = 3  # rows from which a column is known
_MOST_VALUES = 20  # distinct values of a column with few values


class CsvReader:
    """Reader of one CSV or TSV file.

    Attributes:
        taken: Lines taken from the file so far.
        pending: Lines to be read again after a stray quote.
        used: Lines of the current record.
        size: Number of characters of those after the first.
    """

    def __init__(
        self,
        path: Path,
        found: FoundFormat,
        needed: Sequence[str],
        is_complete_row: Callable[[dict[str, str]], bool] | None,
        split: str,
        advice: str,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.path, self.found, self.needed, self.columns = path, found, needed, columns
        self.is_complete_row, self.split, self.advice = is_complete_row, split, advice
        self.taken = 0
        self.pending: deque[str] = deque()
        self.used: list[str] = []
        self.size = 0

    def rows(self) -> Iterator[Row | BadRow]:
        """Yield the rows in the file's order; see `read_rows`."""
        with self.found.open(self.path) as lines:
            self.lines = lines
            self.taken = len(list(islice(lines, self.found.before_header)))
            self.records = self.found.reader(self._take())
            header = self._header()
            self.names = [name.strip() for name in header]
            columns = spelled_as(column_names(header), self.needed)
            read = columns if self.columns is None else self.columns
            check_columns(self.path, columns, self.needed, self._advice(columns), read)
            self.swallowing = _Swallowing(self.path, self.found, columns, self.is_complete_row)
            line, index, passed, empty = self.taken + 1, 0, 0, list[int]()
            while True:
                fields, fault = self._record()
                if not self.used:
                    break
                start, line = line, line + len(self.used)
                if not fault and not fields:
                    empty.append(start)
                    continue
                # In a table of one column, an empty line is a row, unless it ends the file.
                for number in empty if len(columns) == 1 else ():
                    yield BadRow(self.split, self.path.name, index + 1, number, EMPTY_LINE)
                    index += 1
                passed += len(empty) if len(columns) > 1 else 0
                empty.clear()
                if len(self.used[0]) >= MAX_LINE:
                    fault = unreadable(self.used[0])
                fault = fault or self._fault(fields)
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
            report_empty_lines(self.path, passed)

    def _header(self) -> list[str]:
        fields, fault = self._record()
        if fault:
            line = self.found.before_header + 1
            msg = f"{self.path}, line {line}: the header is unreadable: {fault}; correct it"
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
            self._use(line)
            yield line
        for line in self.lines:
            self.taken += 1
            self._use(line)
            yield line

    def _use(self, line: str) -> None:
        """Add a line to the record.

        Raises:
            csv.Error: If a quote is not closed within `MAX_LINE` characters.
        """
        if self.used:
            self.size += len(line)
        self.used.append(line)
        if self.size > MAX_LINE:
            raise csv.Error(_NEVER_CLOSED)

    def _read_again(self, lines: Sequence[str]) -> None:
        self.pending.extendleft(reversed(lines))
        self.records = self.found.reader(self._take())

    def _record(self) -> tuple[list[str], str]:
        """Return the fields of the next record and the parser's error; its lines are in `used`."""
        self.used, self.size = [], 0
        try:
            return next(self.records, []), ""
        except csv.Error as error:
            if "new-line character" in str(error):
                other = "remove it" if self.found.quoting == "none" else "put the field into quotes"
                return [], f"has a carriage return outside of quotes; {other}"
            if _NEVER_CLOSED in str(error):
                return [], f"a stray quote is never closed; {self._advice_for_quotes()}"
            return [], f"its quotes do not pair up ({error}); {self._advice_for_quotes()}"

    def _advice_for_quotes(self) -> str:
        as_text = f"if quotes are part of the texts, {self.found.advice('quoting', 'none')}"
        return f"{QUOTE_TWICE}; {as_text}" if '\\"' in self.used[0] else as_text

    def _fault(self, fields: list[str]) -> str:
        if self.found.escapes or "\\" in self.used[0] or len(self.used) > 1:
            unclear = self.found.unclear_escape(self.used, fields)
            if unclear:
                return unclear
        if len(self.used) > 1 and not self.found.quoting_is_set:
            swallowed = self.swallowing.fault(self.used, self._advice_for_quotes())
            if swallowed:
                return swallowed
        invalid = self.found.fault("".join(fields))
        if invalid:
            return invalid
        if len(fields) != len(self.names):
            fault = f"has {len(fields)} fields where the header has {len(self.names)}"
            if '\\"' in self.used[0]:
                return f"{fault}; {QUOTE_TWICE}"
            extra = len(fields) == len(self.names) + 1 and not fields[-1].strip()
            return f"{fault}; remove the delimiter at its end" if extra else fault
        if fields[0].startswith("\ufeff"):
            return MARK
        if [name.strip() for name in fields] == self.names:
            return "repeats the header; remove it"
        return ""


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
        with found.open(path) as lines:
            sample = first_lines(lines, found.before_header + _SAMPLE)[found.before_header + 1 :]
        rows = [row for row in _single_lines(sample, found) if len(row) == len(columns)]
        values = list(zip(*rows, strict=True)) or [()] * len(columns)
        self.codes = [_are_codes(of_column) for of_column in values]
        self.few = [_few_values(of_column) for of_column in values]

    def fault(self, lines: Sequence[str], as_text: str) -> str:
        """Return the fault of a record with these lines, or an empty string.

        The quote is stray if a later line with paired quotes is surely a row, or if the first and
        the last line may be rows after their quotes are removed: each has one stray quote. In a
        table of one column, each line may be a row.
        """
        paired = [self.found.fields(line) for line in lines[1:] if line.count('"') % 2 == 0]
        ends = [
            line.replace('"', "").rstrip("\r\n").split(self.found.delimiter)
            for line in (lines[0], lines[-1])
        ]
        if any(map(self._is_row, paired)) or all(map(self._may_be_row, ends)):
            several = self.found.advice("quoting", "csv")
            return (
                f"a stray quote swallows the {len(lines) - 1} lines that follow; {as_text}; "
                f"if this text has several lines, {several}"
            )
        return ""

    def _is_row(self, fields: list[str]) -> bool:
        """Return whether a line is surely a row: its label, or a value of the column, says so."""
        if not self._may_be_row(fields) or len(self.columns) == 1:
            return False
        known = [value in few for value, few in zip(fields, self.few, strict=True) if few]
        return self.is_complete_row is not None or any(self.codes) or (bool(known) and all(known))

    def _may_be_row(self, fields: list[str]) -> bool:
        if len(self.columns) == 1:
            return True
        if len(fields) != len(self.columns):
            return False
        if any(
            codes and not _is_code(value) for value, codes in zip(fields, self.codes, strict=True)
        ):
            return False
        values = dict(zip(self.columns, fields, strict=True))
        return self.is_complete_row is None or self.is_complete_row(values)


def _single_lines(lines: Sequence[str], found: FoundFormat) -> list[list[str]]:
    """Return the records of one line; the lines of other records may look like rows."""
    rows = []
    reader, before = found.reader(iter(lines)), 0
    with suppress(csv.Error):  # a stray quote: what was read so far is enough
        for fields in reader:
            if reader.line_num == before + 1:
                rows.append(fields)
            before = reader.line_num
    return rows


def _are_codes(values: Sequence[str]) -> bool:
    """Return whether a column has digits and no blanks: numbers, dates, identifiers."""
    return len(values) >= _LEAST and all(map(_is_code, values))


def _few_values(values: Sequence[str]) -> set[str]:
    """Return the values of a column that has few of them, as labels; empty for other columns."""
    known = set(values)
    return known if len(known) <= min(_MOST_VALUES, len(values) // _LEAST) else set()


def _is_code(value: str) -> bool:
    return any(map(str.isdigit, value)) and len(value.split()) == 1
