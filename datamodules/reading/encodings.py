"""Encoding of a text file: set by the user, or found.

A byte order mark identifies UTF-8, UTF-16 and UTF-32 with certainty. UTF-16 without a mark and
Windows-1252 are guesses, made only if no byte contradicts them.
"""

import codecs
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TextIO

from datamodules.reading.errors import DataError

log = logging.getLogger(__name__)

ENCODING_ADVICE = "set data.encoding"
_START = 2**16  # characters from which the line end is found
MAX_LINE = 2**26  # characters; a longer line is no row of a table, and is not read to its end
_JUDGED = 100  # lines that are not UTF-8; further ones are rather of another encoding
_HEAD = 16  # bytes that show that a file begins with ASCII
_SHOWN = 60  # characters of the sample in a warning
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Windows-1252 leaves these bytes undefined, and a null byte is no character of a text.
_NOT_CP1252 = re.compile(rb"[\0\x81\x8d\x8f\x90\x9d]")
# Three accented letters in a row indicate another alphabet in another encoding, not a Western
# European text.
_OTHER_ALPHABET = re.compile(rb"[\xc0-\xff]{3}")
_INVALID = re.compile("[\udc80-\udcff]")  # how Python marks a byte that is not valid
_NOT_ASCII = re.compile("[^\0-\x7f]")
_ZEROS, _TIMES = 3, 4  # zero bytes of UTF-16, and how many times more than at other places
_GUESSES = {
    "cp1252": "Windows-1252",
    "utf-16-le": "UTF-16-LE without a mark",
    "utf-16-be": "UTF-16-BE without a mark",
}


def detect_encoding(path: Path) -> str:
    """Return the encoding of a file.

    Args:
        path: The file.

    Returns:
        utf-8, utf-8-sig, utf-16, utf-16-le, utf-16-be, utf-32 or cp1252. A file in a mixed or
        unknown encoding counts as utf-8; its rows that are not UTF-8 become bad rows.
    """
    utf8 = other = against = 0
    with path.open("rb") as file:
        start = file.read(4096)
        wide = _mark(start) or _wide_without_mark(start)
        if wide:
            return wide
        file.seek(0)
        while line := file.readline(MAX_LINE):
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
                utf8 += 1
            except UnicodeDecodeError:
                if other < _JUDGED and _is_damaged_utf8(line):
                    return "utf-8"
                other += 1
                against += bool(_NOT_CP1252.search(line) or _OTHER_ALPHABET.search(line))
    return "cp1252" if other and not utf8 and not against else "utf-8"


def _is_damaged_utf8(line: bytes) -> bool:
    """Return whether a line that is not UTF-8 has more characters of UTF-8 than other bytes."""
    text = line.decode("utf-8", "surrogateescape")
    return 2 * len(_INVALID.findall(text)) < len(_NOT_ASCII.findall(text))


def _mark(start: bytes) -> str:
    """Return the encoding that a byte order mark states, or an empty string."""
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "")


def _wide_without_mark(start: bytes) -> str:
    """Return UTF-16 without a mark: delimiters, digits and line ends have a zero byte each."""
    if start[:_HEAD].isascii() and 0 not in start[:_HEAD]:
        return ""  # UTF-16 may follow in a file that was joined
    second, first = start[1::2].count(0), start[::2].count(0)
    if second >= _ZEROS and second > _TIMES * first:
        return "utf-16-le"
    return "utf-16-be" if first >= _ZEROS and first > _TIMES * second else ""


def with_mark(path: Path, encoding: str) -> str:
    """Return the form of an encoding that drops the byte order mark, if the file has one."""
    with path.open("rb") as file:
        marked = _mark(file.read(4))
    same = marked and codecs.lookup(encoding).name[:6] in (marked[:6], marked.replace("-sig", ""))
    return marked if same else encoding


def check_encoding(name: str, option: str) -> None:
    """Raise `DataError` with the name of the option if Python has no such encoding of texts."""
    try:
        with suppress(UnicodeDecodeError):  # UTF-16 needs two bytes
            b"a".decode(name, "surrogateescape")
    except (LookupError, ValueError, TypeError) as error:
        msg = f"{option}: received {name!r}; give one of Python's encodings, as cp1252"
        raise DataError(msg) from error


@contextmanager
def open_text(
    path: Path, encoding: str | None = None, advice: str = ENCODING_ADVICE
) -> Iterator[Iterator[str]]:
    """Open a text file.

    Lines end with a line feed. A carriage return alone ends a line only in a file whose start has
    more of them than line feeds.

    Args:
        path: The file.
        encoding: Its encoding; None detects it.
        advice: Next step for the user if the encoding is wrong.

    Yields:
        Its lines with their line ends. Bytes that are not valid become surrogates U+DC80..U+DCFF.
        Of a line with more than `MAX_LINE` characters, so many are returned.

    Raises:
        DataError: If a UTF-16 file is damaged.
    """
    encoding = encoding or found_encoding(path, advice)
    wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
    errors = "strict" if wide else "surrogateescape"
    try:
        with path.open(encoding=encoding, errors=errors, newline="") as file:
            start = file.read(_START)
        alone = start.count("\r") - start.count("\r\n")
        newline = "\r" if alone > start.count("\n") else "\n"
        with path.open(encoding=encoding, errors=errors, newline=newline) as file:
            yield _lines(file, newline)
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
        msg = f"{path} is not valid {encoding.upper()}: {reason}; save it as UTF-8, or {advice}"
        raise DataError(msg) from error


def found_encoding(path: Path, advice: str = ENCODING_ADVICE) -> str:
    """Return the encoding of a file, and warn if it is a guess."""
    encoding = detect_encoding(path)
    if encoding in _GUESSES:
        log.warning(
            "%s is not UTF-8; it is read as %s, for example %s; if that is wrong, %s",
            path.name,
            _GUESSES[encoding],
            _sample(path, encoding, advice),
            advice,
        )
    return encoding


def _sample(path: Path, encoding: str, advice: str) -> str:
    """Return the first text whose characters depend on the encoding, and its line."""
    with open_text(path, encoding, advice) as lines:
        for number, line in enumerate(lines, start=1):
            other = _NOT_ASCII.search(line)
            if other or not encoding.startswith("cp"):
                start = max(0, other.start() - _SHOWN // 2) if other else 0
                return f"line {number}: {line[start : start + _SHOWN].strip()!r}"
    return ""


def _lines(file: TextIO, end: str) -> Iterator[str]:
    while line := file.readline(MAX_LINE):
        rest = line
        while len(rest) == MAX_LINE and not rest.endswith(end):
            rest = file.readline(MAX_LINE)
        yield line


def first_lines(lines: Iterator[str], count: int) -> list[str]:
    """Return the first lines, at most `count`, with about `MAX_LINE` characters at most."""
    found, characters = [], 0
    for line in islice(lines, count):
        found.append(line)
        characters += len(line)
        if characters > MAX_LINE:
            break
    return found
