"""Writing of CSV that every reader splits into the same rows."""

import csv
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from _csv import Writer


class _Stream(Protocol):
    def write(self, text: str, /) -> object: ...


class _LineFeeds:
    """Stream that ends each row with a line feed."""

    def __init__(self, stream: _Stream) -> None:
        self.stream = stream

    def write(self, row: str) -> object:
        return self.stream.write(row.removesuffix("\r\n") + "\n")


def csv_writer(stream: _Stream, delimiter: str = ",") -> "Writer":
    """Return a CSV writer whose rows end with a line feed.

    A field with a carriage return is quoted. Python below 3.11.9 and 3.12.3 quotes it only if it is
    a part of the line end.
    """
    return csv.writer(_LineFeeds(stream), delimiter=delimiter, lineterminator="\r\n")
