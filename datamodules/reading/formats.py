"""Format of a text table: encoding, delimiter and quoting, set by the user or found."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from datamodules.reading.encodings import (
    check_encoding,
    first_lines,
    found_encoding,
    open_text,
    with_mark,
)
from datamodules.reading.errors import DataError
from datamodules.reading.foreign import check_content
from datamodules.reading.rows import spelled_as, unreadable

if TYPE_CHECKING:
    from _csv import Reader

Quoting = Literal["csv", "none"]
Option = Literal["data.", "--"]  # the prefix of a key of the config, or of a command line's option
DELIMITERS = (",", ";", "\t", "|")
_SAMPLE = 10_000  # lines from which the quoting is found
_COMPARED = 100  # lines from which the delimiter is found
_OTHER_BACKSLASH = re.compile(r'\\(?!")')
# Text in some dialects with escapes, an escape in others.
_UNCLEAR_BACKSLASH = re.compile(r'\\([^" \w]|$)')
_ODD_BACKSLASHES = re.compile(r"(?<!\\)(\\\\)*\\$")
QUOTE_TWICE = r'write a quote within quotes as "", not as \"'
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # Excel's first line
# Rows with quotes that no CSV writer writes: so many, and this share, show that quotes are text.
_LEAST_ODD, _LEAST_ODD_SHARE = 3, 0.05


@dataclass(frozen=True)
class TableFormat:
    """Settings of a text table; None means that the value is found in the file.

    Attributes:
        encoding: A Python encoding.
        delimiter: The character between two fields.
        quoting: csv if a field in quotes may contain delimiters and line ends; none if quotes are
            characters of the texts.
        option: Whether messages name the keys of the config, or a command line's options.
    """

    encoding: str | None = None
    delimiter: str | None = None
    quoting: Quoting | None = None
    option: Option = "data."

    def __post_init__(self) -> None:
        """Raise `DataError` if a value is invalid."""
        if self.encoding is not None:
            check_encoding(self.encoding, f"{self.option}encoding")
        if self.delimiter in ("\\t", "tab"):
            object.__setattr__(self, "delimiter", "\t")
        if self.delimiter is not None and (
            len(self.delimiter) != 1 or self.delimiter in "\"'\r\n\\" or self.delimiter.isalnum()
        ):
            msg = (
                f"{self.option}delimiter: received {self.delimiter!r}; "
                "give one character, for example ',', ';' or '\\t'"
            )
            raise DataError(msg)


@dataclass(frozen=True)
class FoundFormat:
    r"""Complete format of one text table.

    Attributes:
        encoding: Its encoding.
        delimiter: The character between two fields; empty if the file has no fields, as JSONL.
        quoting: See `TableFormat`.
        quoting_is_set: Whether the user set the quoting.
        option: See `TableFormat`.
        escapes: Whether a quote within a field is written as \" and not twice.
        skips_blanks: Whether blanks after a delimiter are no part of the field.
        before_header: Number of lines before the header: empty ones, and Excel's `sep=;`.
    """

    encoding: str
    delimiter: str = ""
    quoting: Quoting = "csv"
    quoting_is_set: bool = False
    option: Option = "data."
    escapes: bool = False
    skips_blanks: bool = False
    before_header: int = 0

    def __str__(self) -> str:
        """Return a description for the plan."""
        encoding = self.encoding.upper().removesuffix("-SIG")
        if not self.delimiter:
            return encoding
        delimiter = {"\t": "tab"}.get(self.delimiter, repr(self.delimiter))
        escape = ", escape '\\'" if self.escapes else ""
        return f"{encoding}, delimiter {delimiter}, quoting {self.quoting}{escape}"

    def advice(self, name: str, value: str) -> str:
        """Return the advice to set one of these, for example `set data.quoting=none`."""
        return advice(self.option, name, value)

    def open(self, path: Path) -> AbstractContextManager[Iterator[str]]:
        """Open a file of this format; see `open_text`."""
        return open_text(path, self.encoding, self.advice("encoding", "NAME"))

    def fault(self, text: str) -> str:
        """Return why the characters of a text are invalid, or an empty string."""
        if "\0" in text:
            other = self.advice("encoding", "NAME")
            return f"has a null character; remove it, or if the encoding is wrong, {other}"
        fault = unreadable(text, self.encoding.removesuffix("-sig"))
        if "byte" not in fault:
            return fault
        return f"{fault}; if that is wrong, {self.advice('encoding', 'NAME')}"

    def unclear_escape(self, lines: Sequence[str], fields: Sequence[str]) -> str:
        """Return the fault if a row has a backslash that may be an escape, or an empty string.

        Args:
            lines: The lines of the row.
            fields: Its fields.
        """
        unclear = "which may be text or an escape"
        if self.escapes:
            found = map(_UNCLEAR_BACKSLASH.search, lines)
            before = next((match[1] for match in found if match), None)
            if before is not None:
                return f"has a backslash before {before!r}, {unclear}; {QUOTE_TWICE} in all rows"
            if self._has_stray_quote("".join(lines).replace('\\"', "")):
                return f"its quotes do not pair up; {QUOTE_TWICE} in all rows"
        elif self.quoting == "csv" and not self.quoting_is_set:
            if len(lines) > 1 and '\\"' in lines[0]:
                alone = replace(self, escapes=True).fields(lines[0])
                if len(alone) == len(fields):
                    several = self.advice("quoting", "csv")
                    return rf"has \", {unclear}; if this text has several lines, {several}"
            # In a field in quotes, this would be two quotes.
            outside = any('\\"' in field for field in fields)
            if outside and not any('\\""' in line for line in lines):
                as_text = self.advice("quoting", "csv")
                return rf"has \" outside of quotes, {unclear}; if it is text, {as_text}"
        return ""

    def _has_stray_quote(self, row: str) -> bool:
        """Return whether a quote neither opens nor closes a field, which csv does not check."""
        delimiter = re.escape(self.delimiter)
        blank = f"(?<!{delimiter} )" if self.skips_blanks else ""
        stray = re.search(rf'(?<=[^{delimiter}]){blank}"(?!{delimiter}|\r?\n?\Z)', row)
        return stray is not None or row.count('"') % 2 == 1

    def reader(self, lines: Iterator[str]) -> "Reader":
        """Return Python's CSV reader of these lines; it raises `csv.Error` for stray quotes."""
        if self.escapes:  # other backslashes are text
            lines = (_OTHER_BACKSLASH.sub(r"\\\\", line) for line in lines)
        return csv.reader(
            lines,
            escapechar="\\" if self.escapes else None,
            doublequote=not self.escapes,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quoting == "csv" else csv.QUOTE_NONE,
            skipinitialspace=self.skips_blanks,
            strict=True,
        )

    def fields(self, line: str) -> list[str]:
        """Return the fields of one line; empty if it is no complete record."""
        try:
            return next(self.reader(iter([line])), [])
        except csv.Error:
            return []


def advice(option: Option, name: str, value: str) -> str:
    """Return the advice to set a value, for example `set data.quoting=none`."""
    return f"set {option}{name}{'=' if option == 'data.' else ' '}{value}"


def find_format(path: Path, needed: Sequence[str], settings: TableFormat) -> FoundFormat:
    """Complete the format of a text file.

    The delimiter is the one with which the header has the needed columns, or, if none are needed,
    the first lines have as many fields as the header. Quotes are characters of the texts if a
    considerable part of the rows has quotes that no CSV writer writes.

    Args:
        path: A .csv, .tsv, .jsonl or .txt file.
        needed: Columns that the header must have; empty if they are not known yet.
        settings: What the user set.

    Raises:
        DataError: If the file is clearly of another format, or cannot be decoded.
    """
    check_content(path)
    other = advice(settings.option, "encoding", "NAME")
    encoding = (
        found_encoding(path, other)
        if settings.encoding is None
        else with_mark(path, settings.encoding)
    )
    if path.suffix.lower() not in (".csv", ".tsv"):
        return FoundFormat(encoding, option=settings.option)
    with open_text(path, encoding, other) as lines:
        sample = first_lines(lines, _SAMPLE)
    before, separator = _before_header(sample)
    header = sample[before] if before < len(sample) else ""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    delimiter = settings.delimiter or separator or _delimiter(sample[before:], needed, usual)
    found = FoundFormat(
        encoding,
        delimiter,
        settings.quoting or "csv",
        settings.quoting is not None,
        settings.option,
        # A blank before a quote hides the quote from a CSV reader.
        skips_blanks=delimiter in header
        and all(name.startswith(" ") for name in header.split(delimiter)[1:]),
        before_header=before,
    )
    if found.quoting == "csv" and _has_escapes(sample[before:], found):
        return replace(found, escapes=True)
    if settings.quoting is None and _quotes_are_text(sample[before:], found):
        return replace(found, quoting="none")
    return found


def unused_settings(path: Path, settings: TableFormat) -> str:
    """Return the fault if a setting is of no use for a file, or an empty string."""
    suffix = path.suffix.lower()
    used = {".csv": 3, ".tsv": 3, ".jsonl": 1, ".txt": 1}.get(suffix, 0)
    names = ("encoding", "delimiter", "quoting")
    unused = [name for name in names[used:] if getattr(settings, name) is not None]
    if not unused:
        return ""
    return f"{settings.option}{unused[0]}: {suffix} files have none; leave it out"


def _before_header(sample: Sequence[str]) -> tuple[int, str]:
    """Return the number of lines before the header, and the delimiter that one of them states."""
    separator = ""
    for number, line in enumerate(sample):
        stated = _SEPARATOR_LINE.fullmatch(line.rstrip("\r\n")) if not separator else None
        if stated:
            separator = stated[1]
        elif line.strip():
            return number, separator
    return len(sample), separator


def _delimiter(lines: Sequence[str], needed: Sequence[str], usual: str) -> str:
    """Return the delimiter with which most of the needed columns are in the header.

    If no column is needed, it is the one with which most lines have as many fields as the header.
    """

    def present(delimiter: str) -> float:
        rows = [FoundFormat("", delimiter).fields(line) for line in lines[:_COMPARED]]
        header = rows[0] if rows else []
        if needed:
            names = [name.strip() for name in header]
            return len({*needed}.intersection(spelled_as(names, needed)))
        return sum(len(row) == len(header) for row in rows) if len(header) > 1 else 0

    return max(DELIMITERS, key=lambda delimiter: (present(delimiter), delimiter == usual))


def _has_escapes(sample: Sequence[str], found: FoundFormat) -> bool:
    r"""Return whether a quote within quotes is written as \".

    Several lines are rows only if it is. No line shows that quotes are written twice, or that a
    quoted text ends with a backslash.
    """
    width = len(found.fields(sample[0])) if sample else 0
    escaping = replace(found, escapes=True)
    count = 0
    for line in sample[1:]:
        if '"' not in line:
            continue
        fields, has_escape = found.fields(line), '\\"' in line
        if len(fields) != width:
            count += has_escape and len(escaping.fields(line)) == width
        elif has_escape:
            if any(map(_ODD_BACKSLASHES.search, fields)):
                return False
        elif '""' in line and any('"' in field for field in fields):
            return False
    return count >= _LEAST_ODD


def _quotes_are_text(sample: Sequence[str], found: FoundFormat) -> bool:
    """Return whether the quotes of these lines are rather text than quoting.

    A line is odd if its quotes cannot come from a CSV writer. A line is regular if one of its
    fields is quoted as a CSV writer does. A line is torn if it has too few or too many delimiters.
    """
    delimiter = re.escape(found.delimiter)
    quoted = re.compile(rf'(?:^|{delimiter}) ?"(?:[^"]|"")*"(?={delimiter}|\r?\n?$)')
    width = len(found.fields(sample[0])) if sample else 0
    odd = regular = torn = 0
    for line in sample[1:]:
        torn += bool(line.strip()) and line.count(found.delimiter) != width - 1
        if '"' in line:
            rest, count = quoted.subn("", line)
            if '\\"' in rest:  # other programs write a quote within quotes so: no evidence
                rest, count = quoted.subn("", line.replace('\\"', ""))
            # One quote alone may open or close a text of several lines.
            odd += rest.replace('""', "").count('"') > 1
            regular += count > 0
    return odd >= max(_LEAST_ODD, _LEAST_ODD_SHARE * len(sample)) and odd > regular + torn
