"""From rows of a table to texts with labels: which rows can be used, and which texts stand in two splits."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from datamodules.base import SPLITS
from datamodules.errors import BadRow, DataError
from datamodules.tables import Row, unreadable


@dataclass
class TextSplit:
    """The usable rows of a split.

    Attributes:
        indices: Row in the file, from 0.
        texts: As in the file.
        labels: 0..K-1.
    """

    indices: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def take(self, positions: Sequence[int]) -> "TextSplit":
        """The rows at these positions."""
        return TextSplit(
            [self.indices[p] for p in positions], [self.texts[p] for p in positions], [self.labels[p] for p in positions]
        )


@dataclass(frozen=True)
class RowReader:
    """What a row has to be like.

    Attributes:
        text_column, label_column: Columns that are read.
        id_column: Column that must not repeat, if any.
        class_names: Name of class 0, 1, ...
    """

    text_column: str
    label_column: str
    id_column: str | None
    class_names: Sequence[str]

    def columns(self) -> list[str]:
        """The columns that are read."""
        return [c for c in (self.text_column, self.label_column, self.id_column) if c is not None]

    def is_whole_row(self, row: Mapping[str, str]) -> bool:
        """Whether a line inside a quoted text is a row by itself."""
        return row[self.label_column] in self.class_names

    def read(self, rows: Iterable[Row | BadRow], file: str, split: str) -> tuple[TextSplit, list[BadRow]]:
        """Part the rows that can be used from those that cannot.

        Args:
            rows: Of one file.
            file: Its name.
            split: The split that it is.

        Returns:
            The split, and the bad rows in order.

        Raises:
            DataError: If there is no row at all.
        """
        good, bad = TextSplit(), []
        seen: dict[str, int] = {}
        for row in rows:
            if isinstance(row, BadRow):
                bad.append(row)
                continue
            text = row.values.get(self.text_column)
            label, reason = self._label(row.values.get(self.label_column))
            reason = text_fault(text, self.text_column) or reason or self._repeated(row, seen)
            if reason:
                bad.append(BadRow(split, file, row.index + 1, row.line, reason))
                continue
            good.indices.append(row.index)
            good.texts.append(str(text))
            good.labels.append(label)
        if not good.texts and not bad:
            msg = f"{file} has a header and no rows; add rows to it, or name another file in data.files"
            raise DataError(msg)
        return good, bad

    def _repeated(self, row: Row, seen: dict[str, int]) -> str:
        if self.id_column is None:
            return ""
        identifier = str(row.values.get(self.id_column))
        first = seen.setdefault(identifier, row.index)
        return "" if first == row.index else f"{self.id_column} '{identifier}' stands in row {first + 1} already"

    def _label(self, value: object) -> tuple[int, str]:
        """Class of a label, or -1 and the reason. A typed number is a class's number, unless names are numbers too."""
        numbered = not any(name.lstrip("-").isdigit() for name in self.class_names)
        if numbered and isinstance(value, int) and not isinstance(value, bool):
            inside = 0 <= value < len(self.class_names)
            return (value, "") if inside else (-1, f"label {value} is outside of 0..{len(self.class_names) - 1}")
        text = str(value).strip() if value is not None else ""
        if text in self.class_names:
            return list(self.class_names).index(text), ""
        near = get_close_matches(text, self.class_names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return -1, f"label '{text}' is none of {', '.join(self.class_names)}{hint}"


def text_fault(text: object, column: str) -> str:
    """Why a value is no text to read, or an empty string."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return f"column '{column}' is empty"
    if not isinstance(text, str):
        return f"column '{column}' holds {text!r}, which is {type(text).__name__} and no text"
    return unreadable(text)


def shared_texts(splits: Mapping[str, TextSplit]) -> dict[tuple[str, str], list[str]]:
    """Texts that stand in two splits.

    Args:
        splits: Name -> split.

    Returns:
        Pair of names -> the texts that both hold, for pairs that share any.
    """
    where: dict[str, set[str]] = defaultdict(set)
    for name in SPLITS:
        for text in splits[name].texts:
            where[text.strip()].add(name)
    shared: dict[tuple[str, str], list[str]] = defaultdict(list)
    for text, names in where.items():
        for i, a in enumerate(SPLITS):
            for b in SPLITS[i + 1 :]:
                if {a, b} <= names:
                    shared[a, b].append(text)
    return dict(shared)
