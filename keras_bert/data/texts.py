"""Texts and labelled tables from files.

The readers are Thaw's own. Their error messages name the options of this command line.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path

from datamodules.reading.errors import EMPTY_LINE, BadRow, DataError, raise_bad_rows
from datamodules.reading.formats import TableFormat
from datamodules.reading.labels import ClassLabels, composed
from datamodules.reading.progress import tracked
from datamodules.reading.rows import Row
from datamodules.reading.tables import read_rows
from datamodules.reading.text_rows import RowReader, TextSplit, text_rows, usable_rows
from datamodules.reading.texts import Texts

FORMAT = TableFormat(option="--")  # messages name the options of this command line
_CHUNK = 4096  # rows that are Python objects at a time
_TEXT_COLUMN = "name another with --text-column"
_COLUMNS = f"{_TEXT_COLUMN} or --label-column"


def read_documents(
    files: Sequence[str],
    column: str,
    table_format: TableFormat = FORMAT,
) -> list[list[str]]:
    """Read documents for pretraining.

    Args:
        files: Text files and tables. In a text file each line is a text, and an empty line ends a
            document. In a table each row is a document.
        column: Text column of the tables.
        table_format: Encoding, delimiter and quoting of the files.

    Returns:
        The texts of each document, at least one per document, in file order.

    Raises:
        DataError: If a file cannot be read or contains no text.
    """
    documents: list[list[str]] = []
    for path in map(Path, files):
        rows = _tracked(path, text_rows(path, column, _TEXT_COLUMN, table_format))
        if path.suffix.lower() == ".txt":
            parts = [list(part) for is_empty, part in groupby(rows, _is_empty_line) if not is_empty]
            documents += [
                [text.strip() for text in _texts(part, column, path)] for part in parts or [[]]
            ]
        else:
            documents += [[text] for text in _texts(rows, column, path)]
    return documents


def read_texts(
    files: Sequence[str],
    column: str,
    table_format: TableFormat = FORMAT,
) -> Texts:
    """Read the texts to classify, one per line or row, in file order.

    Args:
        files: Text files and tables.
        column: Text column of the tables.
        table_format: Encoding, delimiter and quoting of the files.

    Returns:
        The texts.

    Raises:
        DataError: If a file cannot be read or contains no text, or if a row has no text.
    """
    texts = Texts()
    for path in map(Path, files):
        rows = _tracked(path, text_rows(path, column, _TEXT_COLUMN, table_format))
        if path.suffix.lower() == ".txt":
            rows = _without_empty_end(rows)
        for text in _texts(rows, column, path):
            texts.append(text)
    return texts


def read_labelled(
    file: str,
    text_column: str,
    label_column: str,
    classes: Sequence[str] = (),
    table_format: TableFormat = FORMAT,
) -> tuple[TextSplit, list[str]]:
    """Read a table of texts and labels.

    Args:
        file: CSV, TSV, JSONL or Parquet file.
        text_column: Column of the texts.
        label_column: Column of the labels.
        classes: Allowed labels; when empty, the labels in the file.
        table_format: Encoding, delimiter and quoting of the file.

    Returns:
        The rows in file order, and the classes. Classes from the file are in alphabetical order.

    Raises:
        DataError: If the file cannot be read, or if a row has no text or no allowed label.
    """
    path, columns = Path(file), [text_column, label_column]
    names = list(classes) or _labels(
        _tracked(path, read_rows(path, columns, advice=_COLUMNS, table_format=table_format)),
        label_column,
        path,
    )
    reader = RowReader(text_column, ClassLabels(label_column, names), None)
    table = read_rows(path, columns, reader.is_complete_row, "", _COLUMNS, table_format)
    split, bad = reader.read(_read(path, table), path.name, "")
    _raise_first_bad_row(bad)
    return split, names


def _is_empty_line(row: Row | BadRow) -> bool:
    return isinstance(row, BadRow) and row.reason == EMPTY_LINE


def _without_empty_end(rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    """Yield the rows without the empty lines at the end, which are not texts."""
    empty = []
    for row in rows:
        if _is_empty_line(row):
            empty.append(row)
            continue
        yield from empty
        empty.clear()
        yield row


def _labels(rows: Iterable[Row | BadRow], column: str, path: Path) -> list[str]:
    names: set[str] = set()
    bad = []
    for row in rows:
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        label = row.values.get(column)
        if label is not None and label == label:  # NaN differs from itself and is not a label
            names.add(composed(str(label).strip()))
    if not names - {""}:
        _raise_first_bad_row(bad)
        msg = f"{path}: no row has a label in column '{column}'"
        raise DataError(msg)
    return sorted(names - {""})


def _read(path: Path, rows: Iterator[Row | BadRow]) -> Iterator[Row | BadRow]:
    try:
        yield from rows
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise DataError(msg) from error


def _tracked(path: Path, rows: Iterator[Row | BadRow]) -> Iterator[Row | BadRow]:
    return tracked(_read(path, rows), f"reading {path.name}")


def _texts(rows: Iterable[Row | BadRow], column: str, path: Path) -> Texts:
    texts, bad = Texts(), list[BadRow]()
    remaining = iter(rows)
    while chunk := list(islice(remaining, _CHUNK)):
        good, faults = usable_rows(chunk, column, path.name)
        bad += faults
        for row in good:
            texts.append(row.values[column])
    _raise_first_bad_row(bad)
    if not texts:
        msg = f"{path} holds no text"
        raise DataError(msg)
    return texts


def _raise_first_bad_row(bad: list[BadRow]) -> None:
    """Raise `DataError` with one line about the first bad row, if there is one."""
    more = f" ({len(bad)} bad rows in all)" if len(bad) > 1 else ""
    raise_bad_rows(bad[:1], advice=f"fix the file, or remove the row{more}")
