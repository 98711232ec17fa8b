"""A row of a table, and the checks that all formats share."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from datamodules.reading.encodings import MAX_LINE
from datamodules.reading.errors import DataError

log = logging.getLogger(__name__)

COLUMN_ADVICE = "set data.text_column, image_column, label_column or group_column"
PREDICTION_ADVICE = "name it with --column"
MAX_CHARACTERS = 4_000_000  # of one row; the longest novels have less
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_COLUMNS = 12  # named in a message


def other_columns(columns: Sequence[str]) -> str:
    """Return the advice for a table that a finished run reads, with the run's columns."""
    return f"the run reads the columns {', '.join(columns)}; rename those of the file"


@dataclass(slots=True)  # not frozen, which would triple the time to create one
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

    @property
    def number(self) -> int:
        """Number of the data row, from 1."""
        return self.index + 1


def column_names(header: Sequence[str]) -> list[str]:
    """Return the names of the columns of a CSV header, without blanks around them.

    A column without a name gets its position from 1: `column_3`.
    """
    names = [name.strip() for name in header]
    for position, name in enumerate(names, start=1):
        free = f"column_{position}"
        while not name and free in names:
            free += "_"
        names[position - 1] = name or free
    return names


def spelled_as(columns: Sequence[str], needed: Sequence[str]) -> list[str]:
    """Return the columns with the needed names as these are spelled.

    An accented letter is one character in some files and two in others. Both look the same.
    """
    spelling = {normalize("NFC", name): name for name in needed if name not in columns}
    return [spelling.get(normalize("NFC", name), name) for name in columns]


def report_empty_lines(path: Path, count: int) -> None:
    """Log how many lines of a table are empty, and so no rows."""
    if count:
        log.info("%s: passed over %d empty %s", path.name, count, "line" if count == 1 else "lines")


def check_columns(
    path: Path,
    columns: Sequence[str],
    needed: Sequence[str],
    advice: str = COLUMN_ADVICE,
    read: Sequence[str] | None = None,
) -> None:
    """Raise `DataError` if a needed column is missing or a column that is read occurs twice.

    Args:
        path: The file.
        columns: Its columns.
        needed: Columns that it must have.
        advice: Next step for the user if one is missing.
        read: Columns that are read; None reads all.
    """
    fault = unreadable("".join(columns))
    if fault:
        msg = f"{path}: a name of a column {fault}; save the file as UTF-8"
        raise DataError(msg)
    for column in needed:
        if column not in columns:
            shown = ", ".join(columns[:_MOST_COLUMNS])
            msg = f"{path}: no column '{column}'; it has {shown}; {advice}"
            raise DataError(msg)
    for name, count in Counter(columns).items():
        if count > 1 and (read is None or name in read):
            msg = f"{path}: the header names '{name}' {count} times; rename all but one"
            raise DataError(msg)


def key_fault(row: Row, column: str | None) -> str:
    """Return why the id or the group of a row cannot be used, or an empty string.

    Args:
        row: The row.
        column: Its column; None if there is none to check.
    """
    if column is None:
        return ""
    value = row.values.get(column)
    if value is None or value != value or not str(value).strip():  # NaN is empty too
        return f"column '{column}' is empty"
    fault = unreadable(str(value))
    return f"column '{column}' {fault}" if fault else ""


def unreadable(text: str, encoding: str = "utf-8") -> str:
    """Return why the characters of a text are invalid, or an empty string.

    Args:
        text: A text.
        encoding: The encoding in which it was read.
    """
    if len(text) > MAX_CHARACTERS:
        more = " or more" if len(text) >= MAX_LINE else ""
        limit = f"at most {MAX_CHARACTERS:,} are read"
        return f"has {len(text):,} characters{more}; {limit}: shorten it"
    if "\0" in text:
        return "has a null character; remove it"
    if text.isascii():
        return ""
    found = _SURROGATE.search(text)
    if found is None:
        return ""
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # noqa: PLR2004 - how Python marks a byte that is not valid
        return f"is not {encoding.upper()}: byte 0x{code - 0xDC00:02X}"
    return f"has an unpaired surrogate U+{code:X}"
