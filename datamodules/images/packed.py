"""Many texts in one array of bytes, which takes a part of the memory of as many objects."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, overload


class PackedTexts(Sequence[str]):
    """A list of texts that is only appended to.

    File names that are not valid UTF-8 are kept, as `os.fsencode` encodes them.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.content, self.ends = bytearray(), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text."""
        self.content += os.fsencode(text)
        self.ends.append(len(self.content))

    def take(self, positions: Iterable[int]) -> Self:
        """Return the texts at these positions."""
        taken = type(self)()
        for position in positions:
            taken.content += self.content[self.ends[position] : self.ends[position + 1]]
            taken.ends.append(len(taken.content))
        return taken

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, position: int) -> str: ...

    @overload
    def __getitem__(self, position: slice) -> list[str]: ...

    def __getitem__(self, position: int | slice) -> str | list[str]:
        """Return one text, or a list of them."""
        if isinstance(position, slice):
            return [self[p] for p in range(*position.indices(len(self)))]
        place = range(len(self))[position]
        return os.fsdecode(bytes(self.content[self.ends[place] : self.ends[place + 1]]))

    def __iter__(self) -> Iterator[str]:
        return (self[position] for position in range(len(self)))
