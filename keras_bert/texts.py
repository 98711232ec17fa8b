"""Texts and labelled tables from files. Every fault is named with file and row."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from keras_bert.errors import KerasBertError

_TABLES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class LabelledTexts:
    """A split of a classification.

    Attributes:
        texts: N texts.
        labels: N names of classes.
        source: Where from, for errors.
    """

    texts: list[str]
    labels: list[str]
    source: str

    def take(self, rows: Sequence[int]) -> "LabelledTexts":
        """Some of the rows."""
        return LabelledTexts([self.texts[i] for i in rows], [self.labels[i] for i in rows], self.source)


def read_documents(files: Sequence[str], column: str) -> list[list[str]]:
    """Read texts to learn a language from.

    Args:
        files: Text files, in which a line is a text and an empty line ends a document, and tables, a document a row.
        column: Of the tables.

    Returns:
        Documents of one or more texts each, in order.

    Raises:
        KerasBertError: If a file cannot be read or holds nothing.
    """
    documents: list[list[str]] = []
    for name in files:
        path = Path(name)
        found = _paragraphs(path) if path.suffix == ".txt" else [[text] for text in _column(_table(path), column, path)]
        if not any(found):
            msg = f"{path} holds no text"
            raise KerasBertError(msg)
        documents += [lines for lines in found if lines]
    return documents


def read_labelled(file: str, text_column: str, label_column: str) -> LabelledTexts:
    """Read a table of texts and labels.

    Args:
        file: CSV, TSV or Parquet.
        text_column: Column of the texts.
        label_column: Column of the labels.

    Returns:
        Its rows, in order.

    Raises:
        KerasBertError: If the file cannot be read, or a row lacks text or label.
    """
    path = Path(file)
    table = _table(path)
    return LabelledTexts(_column(table, text_column, path), _column(table, label_column, path), str(path))


def read_texts(files: Sequence[str], column: str) -> list[str]:
    """Texts to predict, a line or a row each, in order.

    Args:
        files: Text files and tables.
        column: Of the tables.

    Returns:
        The texts.

    Raises:
        KerasBertError: If a file cannot be read or a row has no text.
    """
    texts: list[str] = []
    for name in files:
        path = Path(name)
        texts += _lines(path) if path.suffix == ".txt" else _column(_table(path), column, path)
    return texts


def _lines(path: Path) -> list[str]:
    """Lines of a text file, each of them a text."""
    lines = _text(path).rstrip("\r\n").split("\n")
    for row, line in enumerate(lines, 1):
        if not line.strip():
            msg = f"{path}, row {row}: the line is empty; a text a line is needed"
            raise KerasBertError(msg)
    return [line.rstrip("\r") for line in lines]


def _paragraphs(path: Path) -> list[list[str]]:
    """Lines between empty lines."""
    parts: list[list[str]] = [[]]
    for line in _text(path).split("\n"):
        if line.strip():
            parts[-1].append(line.strip())
        elif parts[-1]:
            parts.append([])
    return parts


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        msg = f"{path}, row {row}: byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        raise KerasBertError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise KerasBertError(msg) from error


def _table(path: Path) -> pd.DataFrame:
    if path.suffix not in {*_TABLES, ".parquet"}:
        msg = f"{path}: files end in .txt (where there are no labels), .csv, .tsv or .parquet"
        raise KerasBertError(msg)
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep=_TABLES[path.suffix], dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise KerasBertError(msg) from error
    except (ValueError, pd.errors.ParserError) as error:
        msg = f"{path} cannot be read as {path.suffix}: {' '.join(str(error).split())}"
        raise KerasBertError(msg) from error


def _column(table: pd.DataFrame, column: str, path: Path) -> list[str]:
    if column not in table:
        msg = (
            f"{path} has no column {column!r}; it has {', '.join(map(repr, table.columns))}: say which with --text-column or so"
        )
        raise KerasBertError(msg)
    if table.empty:
        msg = f"{path} has no rows"
        raise KerasBertError(msg)
    values = ["" if value is None or value != value else str(value) for value in table[column]]
    empty = [row for row, value in enumerate(values, 1) if not value.strip()]
    if empty:
        msg = f"{path}, row {empty[0]}: {column} is empty ({len(empty)} such rows); fill it or remove the row"
        raise KerasBertError(msg)
    return values
