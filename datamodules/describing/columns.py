"""The columns of a table, counted row by row."""

import re
from array import array
from typing import Any, NamedTuple

import numpy as np

from datamodules.images.content import content_of
from datamodules.inferring.columns import is_number

_WHOLE = re.compile(r"\s*[+-]?\d+\s*")
_EXAMPLE = 40  # characters
_MOST_CLASSES = 100  # different values of a column of labels
_IDS = frozenset(("id", "ids", "uid", "uuid", "guid", "key", "index", "idx", "nr", "no", "number"))
_GROUPS = frozenset(
    ("group", "user", "author", "patient", "subject", "person", "speaker", "session", "customer",
     "account", "document", "source", "site", "video", "scene", "thread", "conversation", "fold")
)  # fmt: skip
_WORDS = re.compile(r"[a-z]+", re.IGNORECASE)


class ColumnFacts(NamedTuple):
    """A column of a table.

    Attributes:
        name: Its name.
        content: What its values are: text, whole numbers, ...
        rows: Number of rows.
        empty: Number of rows without a value.
        distinct: Number of different values.
        example: The first value, shortened.
        repeated: Number of different values that occur more than once.
        longest: Characters of its longest text.
    """

    name: str
    content: str
    rows: int
    empty: int
    distinct: int
    example: str
    repeated: int
    longest: int

    def role(self) -> str:
        """Return for what the column may be used, with a question mark; empty if nothing shows."""
        words = {word.lower() for word in _WORDS.findall(self.name)}
        filled = self.rows - self.empty
        if self.distinct <= 1:
            return "always the same" if self.distinct else "empty"
        if self.distinct == filled and (words & _IDS or self.content == "whole numbers"):
            return "id?"
        if words & _GROUPS and self.distinct < filled:
            return "group?"
        few = self.distinct <= _MOST_CLASSES and 2 * self.distinct <= filled
        if few and self.content != "numbers":
            return "label?"
        is_name = self.content in ("text", "whole numbers") and self.longest <= _EXAMPLE
        in_groups = 2 * self.repeated > self.distinct and 2 * self.distinct <= filled
        return "group?" if is_name and in_groups else ""


class ColumnCounter:
    """Counts the values of a column; of each value a number is kept.

    Attributes:
        name: Name of the column.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._example = ""
        self._longest = 0
        self._contents: set[str] = set()
        self._hashes = array("q")

    def add(self, value: Any) -> None:  # noqa: ANN401 - any value of a table
        """Count a value, unless it is empty."""
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            return
        if not self._example:
            self._example = _shortened(value)
        if not (isinstance(value, str) and "text" in self._contents):
            self._contents.add(_content(value))
        if isinstance(value, str):
            self._longest = max(self._longest, len(value))
        # The hashes of the numbers -1 and -2 are equal, and lists have none.
        self._hashes.append(hash(value if isinstance(value, str | bytes) else repr(value)))

    def facts(self, rows: int) -> ColumnFacts:
        """Return what was counted in a table of so many rows."""
        contents = self._contents
        if "text" in contents and contents <= {"text", "whole numbers", "numbers"}:
            contents = {"text"}
        elif contents == {"whole numbers", "numbers"}:
            contents = {"numbers"}
        values, counts = np.unique(np.asarray(self._hashes, np.int64), return_counts=True)
        content = " or ".join(sorted(contents)) or "-"
        empty = rows - len(self._hashes)
        return ColumnFacts(
            self.name, content, rows, empty, len(values), self._example or "-",
            repeated=int(np.count_nonzero(counts > 1)), longest=self._longest,
        )  # fmt: skip


def _content(value: Any) -> str:  # noqa: ANN401 - any value of a table
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            return "whole numbers"
        return "numbers" if is_number(value) else "text"
    if content_of(value) is not None:
        return "files"
    names = {bool: "true or false", int: "whole numbers", float: "numbers", list: "lists"}
    return names.get(type(value), type(value).__name__)


def _shortened(value: Any) -> str:  # noqa: ANN401 - any value of a table
    content = content_of(value)
    if content is not None:
        return f"{len(content):,} bytes"
    text = " ".join(str(value).split())
    return text if len(text) <= _EXAMPLE else f"{text[: _EXAMPLE - 3]}..."
