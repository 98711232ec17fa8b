"""Reader of one file of JSON Lines, an object in each line, that reports bad rows."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from datamodules.reading.encodings import MAX_LINE
from datamodules.reading.errors import BadRow, DataError, check_count
from datamodules.reading.formats import FoundFormat
from datamodules.reading.rows import Row, check_columns, report_empty_lines, spelled_as
from run_folders.errors import brief

_FIRST = 4096  # rows at the start; each needed column is in one of them
_NOT_JSON = "is not JSON"


class JsonlReader:
    """Reader of one file of JSON Lines.

    Attributes:
        lines: Number of lines read so far.
        characters: Number of their characters.
        empty: Number of those that are empty, which are no rows.
        passed_over: Number of empty lines before the last row.
    """

    def __init__(
        self, path: Path, found: FoundFormat, needed: Sequence[str], split: str, advice: str
    ) -> None:
        self.path, self.found, self.needed = path, found, needed
        self.split, self.advice = split, advice
        self.lines = self.characters = self.empty = self.passed_over = 0

    def rows(self) -> Iterator[Row | BadRow]:
        """Yield the rows in the file's order; see `read_rows`."""
        rows = self._rows()
        first = []
        for found in islice(rows, _FIRST):
            first.append(found)
            if self.characters > MAX_LINE:
                break
        self._check_start(first)
        count = bad = 0
        for row, _ in chain(first, rows):
            count += 1
            bad += isinstance(row, BadRow)
            yield row
        check_count(self.path.name, self.lines - self.empty, count - bad, bad)
        report_empty_lines(self.path, self.passed_over)

    def _rows(self) -> Iterator[tuple[Row | BadRow, dict[str, Any]]]:
        """Yield each row with its values, which a bad row may have too."""
        with self.found.open(self.path) as lines:
            for line in lines:
                self.lines += 1
                self.characters += len(line)
                if not line.strip():
                    self.empty += 1
                    continue
                self.passed_over = self.empty
                values, fault = self._parsed(line)
                index = self.lines - self.empty - 1
                row: Row | BadRow = Row(index, self.lines, values)
                if fault:
                    row = BadRow(self.split, self.path.name, index + 1, self.lines, fault)
                yield row, values

    def _parsed(self, line: str) -> tuple[dict[str, Any], str]:
        """Return the object of a line and an empty string, or the fault."""
        fault = self.found.fault(line)
        if fault:
            return {}, fault
        try:
            values = json.loads(line, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            return {}, f"{_NOT_JSON}: {error.msg} at column {error.colno}"
        except (ValueError, RecursionError) as error:
            return {}, f"is no JSON that can be read: {brief(error)}"
        if not isinstance(values, dict):
            return {}, f"is not a JSON object but {type(values).__name__}"
        if all(column in values for column in self.needed):
            return values, ""
        names = spelled_as(list(values), self.needed)
        values = dict(zip(names, values.values(), strict=True))
        missing = [column for column in self.needed if column not in values]
        return values, f"has no '{missing[0]}'" if missing else ""

    def _check_start(self, first: Sequence[tuple[Row | BadRow, dict[str, Any]]]) -> None:
        """Raise `DataError` if no row at the start has a needed column, or none is JSON."""
        columns = dict.fromkeys(name for _, values in first for name in values)
        if columns and not all(column in columns for column in self.needed):
            check_columns(self.path, list(columns), self.needed, self.advice)
        faults = [row for row, _ in first if isinstance(row, BadRow)]
        if len(first) > 1 and sum(row.reason.startswith(_NOT_JSON) for row in faults) == len(first):
            msg = (
                f"{self.path}: no line is JSON; line {faults[0].line} {faults[0].reason}; "
                "write one object on each line, or rename a table to .csv or .tsv"
            )
            raise DataError(msg)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"it names '{twice}' twice"
        raise ValueError(msg)
    return values
