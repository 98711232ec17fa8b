"""From rows of a table to texts with labels: which rows can be used."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from datamodules.errors import BadRow, DataError
from datamodules.labels import class_of
from datamodules.splits import stratified_split
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

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def classes(self) -> set[int]:
        """The classes that occur."""
        return set(self.labels)

    def divided(self, fraction: float, seed: int) -> tuple[list[int], list[int]]:
        """Positions of two parts with the same share of every class."""
        return stratified_split(self.labels, fraction, seed)

    def rows(self) -> Iterable[tuple[int, str, int]]:
        """Row, text and label of each: what tells two datasets apart."""
        return zip(self.indices, self.texts, self.labels, strict=True)

    def contents(self) -> list[str]:
        """The texts; one that stands in two splits is the same in both."""
        return [text.strip() for text in self.texts]

    def name_of(self, content: str) -> str:
        """The text itself."""
        return content

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
            label, reason = class_of(row.values.get(self.label_column), self.class_names)
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


def text_fault(text: object, column: str) -> str:
    """Why a value is no text to read, or an empty string."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return f"column '{column}' is empty"
    if not isinstance(text, str):
        return f"column '{column}' holds {text!r}, which is {type(text).__name__} and no text"
    return unreadable(text)
