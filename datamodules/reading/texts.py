"""Many texts in one buffer."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, overload

_ERRORS = "surrogateescape"  # keeps file names that are not valid UTF-8


class Texts(Sequence[str]):
    """Texts as UTF-8 in one buffer with offsets, without a Python object for each text."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._buffer = bytearray()
        self._ends = array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text at the end."""
        self._buffer += text.encode("utf-8", _ERRORS)
        self._ends.append(len(self._buffer))

    def take(self, positions: Iterable[int]) -> Self:
        """Return the texts at these positions."""
        return type(self)(self[position] for position in positions)

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
        return self._buffer[self._ends[place] : self._ends[place + 1]].decode("utf-8", _ERRORS)

    def __iter__(self) -> Iterator[str]:
        return (self[position] for position in range(len(self)))
