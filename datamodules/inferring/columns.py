"""Which column of a table has the texts, and which one the labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from datamodules.inferring.classes import MOST_CLASSES, count_labels
from datamodules.reading.errors import DataError
from run_folders.errors import shortened

Content = Literal["text_column", "image_column"]
TEXT_NAMES = ("text",)
IMAGE_NAMES = (
    "img", "images", "picture", "photo", "path", "image_path", "img_path", "file", "filename",
    "file_name", "filepath", "file_path", "image_name",
)  # fmt: skip
IMAGE_ID_NAMES = ("image_id", "img_id", "id", "id_code", "name")  # of images without their suffix
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
LABEL_NAMES = (
    "labels", "class", "classes", "class_name", "category", "target", "sentiment", "emotion",
    "topic", "intent", "y",
)  # fmt: skip
SEPARATED_NAMES = ("labels", "tags", "classes", "categories", "topics", "genres", "keywords")
_LONG = 3  # words of an average text
_LONGEST = 1000  # characters of a value that are looked at for an example
_SHOWN = 40  # characters of an example
_DENSE = "\u0e00"  # letters from here on: Thai, Chinese, Japanese


class OpenColumnError(DataError):
    """Several columns of a table fit one setting; the message is a question.

    Attributes:
        key: The setting of `data`.
        names: The columns.
    """

    def __init__(self, message: str, key: str = "", names: Sequence[str] = ()) -> None:
        """Store the question and its answers."""
        super().__init__(message)
        self.key, self.names = key, list(names)


@dataclass(frozen=True)
class Column:
    """A column with the values of some rows.

    Attributes:
        name: Its name.
        values: Its values that are not empty.
    """

    name: str
    values: Sequence[Any]

    @cached_property
    def texts(self) -> list[str]:
        """Its values that are strings and no numbers."""
        return [value for value in self.values if isinstance(value, str) and not is_number(value)]

    @cached_property
    def labels(self) -> Mapping[str, int]:
        """Its values as labels, with the number of rows."""
        plain = (value for value in self.values if not isinstance(value, dict | list | bytes))
        return count_labels(plain)

    @cached_property
    def words(self) -> float:
        """Average number of words; see `_words`."""
        return sum(map(_words, self.texts)) / max(1, len(self.texts))

    @property
    def example(self) -> str:
        """One of its values, shortened."""
        text = " ".join(str(self.values[0])[:_LONGEST].split()) if self.values else ""
        return f"{self.name} (such as {text[:_SHOWN]!r})"

    def is_text(self) -> bool:
        """Return whether its values look like texts: words, mostly different ones."""
        few = 2 * len(self.labels) < len(self.values)
        return 2 * len(self.texts) > len(self.values) > 0 and self.words >= _LONG and not few

    def is_image(self) -> bool:
        """Return whether its values are images, or paths of images."""
        found = [
            value.lower().endswith(_IMAGE_SUFFIXES)
            if isinstance(value, str)
            else isinstance(value, bytes | dict)
            for value in self.values
        ]
        return 2 * sum(found) > len(found)

    def is_string(self) -> bool:
        """Return whether its values are strings, and not always the same."""
        return 2 * len(self.texts) > len(self.values) > 0 and len(self.labels) > 1

    def is_label(self) -> bool:
        """Return whether its values look like classes: few different ones, none long."""
        distinct = len(self.labels)
        rare = 2 * distinct <= len(self.values) and 1 < distinct <= MOST_CLASSES
        return rare and self.words < _LONG and not any("." in name for name in self._numbers)

    @property
    def _numbers(self) -> list[str]:
        return [name for name in self.labels if is_number(name)]


def text_column(columns: Sequence[Column], taken: Sequence[str], place: str) -> tuple[str, str]:
    """Return the column of the texts and how it was found.

    Args:
        columns: All columns.
        taken: Names of columns with another use.
        place: The table, for messages.

    Raises:
        DataError: If no column fits, or several do.
    """
    free = [column for column in columns if column.name not in taken]
    tests: tuple[tuple[str, Callable[[Column], bool]], ...] = (
        ("its name", lambda column: _named(column, TEXT_NAMES) and column.is_string()),
        ("the only column of texts", Column.is_text),
        ("the only column of strings", lambda column: column.is_string() and not column.is_label()),
    )
    return _chosen(free, tests, "the texts", "text_column", place)


def image_column(columns: Sequence[Column], taken: Sequence[str], place: str) -> tuple[str, str]:
    """Return the column of the images, or of their paths; see `text_column`."""
    free = [column for column in columns if column.name not in taken]
    tests: tuple[tuple[str, Callable[[Column], bool]], ...] = (
        ("its name", lambda column: _named(column, ("image",))),
        ("the only column of images", Column.is_image),
        ("its name", lambda column: _named(column, IMAGE_NAMES)),
        ("its name", lambda column: _named(column, IMAGE_ID_NAMES)),
    )
    return _chosen(free, tests, "the images", "image_column", place)


CONTENT_COLUMN = {"text_column": text_column, "image_column": image_column}


def label_column(
    columns: Sequence[Column], taken: Sequence[str], place: str, separator: str | None
) -> tuple[str, str]:
    """Return the column of the labels and how it was found.

    Args:
        columns: All columns.
        taken: Names of columns with another use.
        place: The table, for messages.
        separator: String between the labels of a sample; None for one class.

    Raises:
        DataError: If no column fits, or several do.
    """
    free = [column for column in columns if column.name not in taken]
    names = LABEL_NAMES if separator is None else SEPARATED_NAMES

    def fits(column: Column) -> bool:
        if separator is None:
            return column.is_label() and not column.is_text()
        return any(separator in str(value) for value in column.values) and not column.is_text()

    tests: tuple[tuple[str, Callable[[Column], bool]], ...] = (
        ("its name", lambda column: _named(column, ("label",))),
        ("its name", lambda column: _named(column, names)),
        ("the only column with few different values", fits),
    )
    return _chosen(free, tests, "the labels", "label_column", place)


def _chosen(
    columns: Sequence[Column],
    tests: Sequence[tuple[str, Callable[[Column], bool]]],
    what: str,
    key: str,
    place: str,
) -> tuple[str, str]:
    """Return the only column that passes the first test that any passes, and the test's name."""
    for why, test in tests:
        fitting = [column for column in columns if test(column)]
        if len(fitting) == 1:
            return fitting[0].name, why
        if fitting:
            shown = " or ".join(column.example for column in fitting)
            msg = f"{place}: which column has {what}? set data.{key} to {shown}"
            raise OpenColumnError(msg, key, [column.name for column in fitting])
    has = shortened(column.name for column in columns) if columns else "no other column"
    msg = f"{place}: no column looks like {what}; set data.{key} to its name: {has}"
    raise DataError(msg)


def check_header(columns: Sequence[Column], place: str) -> None:
    """Raise `DataError` if the names of the columns look like the values of a row."""
    names = [column.name for column in columns]
    numbered = names == [str(number) for number in range(len(names))]
    known = (*TEXT_NAMES, "label", *LABEL_NAMES, *SEPARATED_NAMES)
    if numbered or any(_named(column, known) for column in columns):
        return
    for column in columns:
        name = column.name
        is_sentence = len(name.split()) > 2 * _LONG and not name.endswith(("?", ":"))
        if is_sentence or is_number(name) or (column.is_label() and name in column.values):
            msg = (
                f"{place} has no header: its first line is a row ({shortened(names)}); put a line "
                f"with the names of the columns above it, such as text,label"
            )
            raise DataError(msg)


def _named(column: Column, names: Sequence[str]) -> bool:
    return column.name.strip().lower() in names


def _words(text: str) -> float:
    """Return the number of words; without blanks between words, as in Thai, two letters are one."""
    dense = 0 if text.isascii() else sum(letter >= _DENSE for letter in text)
    return len(text.split()) + dense / 2


def is_number(text: str) -> bool:
    """Return whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
