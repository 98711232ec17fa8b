"""Many texts without a Python object for each: UTF-8 with offsets, in memory or in a file."""

import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import IO, Self, overload

import numpy as np

from datamodules.reading.errors import DataError
from run_folders.errors import brief

_ERRORS = "surrogateescape"  # keeps file names that are not valid UTF-8
_IN_MEMORY = 32 * 2**20  # bytes; more are written to a temporary file
_BLOCK = 32  # texts that are read from the file at a time; one may have 16 MB


class Texts(Sequence[str]):
    """Texts in the order in which they were added.

    The last 32 MiB at most are in memory. Earlier texts are in a temporary file that the system
    deletes with the object. Threads and forked processes may read at the same time.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._file: IO[bytes] | None = None
        self._written = 0  # bytes in the file
        self._recent = bytearray()  # the texts after those in the file
        self._ends = array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text at the end.

        Raises:
            DataError: If the temporary file cannot be written.
        """
        self._recent += text.encode("utf-8", _ERRORS)
        self._ends.append(self._written + len(self._recent))
        if len(self._recent) >= _IN_MEMORY:
            self._write()

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as the object
            while self._recent:
                del self._recent[: self._file.write(self._recent)]
        except OSError as error:
            msg = (
                f"{tempfile.gettempdir()}: texts cannot be written there ({brief(error)}); "
                "free space, or set TMPDIR to another folder"
            )
            raise DataError(msg) from error
        self._written = self._ends[-1]

    def take(self, positions: Iterable[int]) -> Self:
        """Return the texts at these positions."""
        return type(self)(self[position] for position in positions)

    def repetitions(self) -> dict[int, int]:
        """Return the positions of texts that occurred before, and where they occurred first."""
        hashes = np.fromiter(map(hash, self), np.int64, len(self))
        values, counts = np.unique(hashes, return_counts=True)
        first: dict[str, int] = {}
        found = {}
        for position in np.flatnonzero(np.isin(hashes, values[counts > 1])).tolist():
            earlier = first.setdefault(self[position], position)  # two texts may share a hash
            if earlier != position:
                found[position] = earlier
        return found

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[p] for p in range(*position.indices(len(self)))]
        place = range(len(self))[position]
        content = self._bytes(self._ends[place], self._ends[place + 1])
        return content.decode("utf-8", _ERRORS)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _BLOCK):
            ends = self._ends[first : first + _BLOCK + 1]
            content = self._bytes(ends[0], ends[-1])
            for start, end in pairwise(ends):
                yield content[start - ends[0] : end - ends[0]].decode("utf-8", _ERRORS)

    def _bytes(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`, of which the file has the first."""
        content = b""
        if self._file is not None and start < self._written:
            content = os.pread(self._file.fileno(), min(end, self._written) - start, start)
            start = self._written
        return content + self._recent[max(start - self._written, 0) : max(end - self._written, 0)]

    def __reduce__(self) -> tuple[type[Self], tuple[list[str]]]:
        """Pickle the texts themselves: another process cannot open the temporary file."""
        return type(self), (list(self),)
