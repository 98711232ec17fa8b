"""Detection of the encoding of a text file.

A byte order mark identifies UTF-8 and UTF-16 with certainty. Windows-1252 is a guess, made only if
no byte contradicts it.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datamodules.reading.errors import DataError

log = logging.getLogger(__name__)

_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# Windows-1252 leaves these bytes undefined.
_NOT_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
# Three accented letters in a row indicate another alphabet in another encoding, not a Western
# European text.
_OTHER_ALPHABET = re.compile(rb"[\xc0-\xff]{3}")


def detect_encoding(path: Path) -> str:
    """Return the encoding of a file.

    Args:
        path: The file.

    Returns:
        utf-8, utf-8-sig, utf-16 or cp1252. A file in a mixed or unknown encoding counts as utf-8;
        its rows that are not UTF-8 become bad rows.
    """
    utf8 = other = against = 0
    with path.open("rb") as file:
        start = file.read(3)
        for mark, encoding in _MARKS.items():
            if start.startswith(mark):
                return encoding
        file.seek(0)
        for line in file:
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
                utf8 += 1
            except UnicodeDecodeError:
                other += 1
                against += bool(_NOT_CP1252.search(line) or _OTHER_ALPHABET.search(line))
    return "cp1252" if other and not utf8 and not against else "utf-8"


@contextmanager
def open_text(path: Path) -> Iterator[Iterator[str]]:
    """Open a text file in its detected encoding.

    Args:
        path: The file.

    Yields:
        Its lines with their line ends. Bytes that are not UTF-8 become surrogates U+DC80..U+DCFF.

    Raises:
        DataError: If a UTF-16 file is damaged.
    """
    encoding = detect_encoding(path)
    if encoding == "cp1252":
        log.warning("%s is not UTF-8; it is read as Windows-1252", path.name)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            msg = (
                f"{path} is not valid {encoding.upper()}: {error.reason} at byte {error.start}; "
                "save it as UTF-8"
            )
            raise DataError(msg) from error
