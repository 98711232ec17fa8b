"""Texts and labelled tables from files, read as everywhere in Thaw; advice is given in the options of this command line."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from datamodules.reading.errors import BadRow, DataError, raise_bad_rows
from datamodules.reading.tables import Row, read_rows
from datamodules.reading.text_rows import RowReader, TextSplit, text_rows, usable_rows

_TEXT_COLUMN = "name another with --text-column"
_COLUMNS = f"{_TEXT_COLUMN} or --label-column"


def read_documents(files: Sequence[str], column: str) -> list[list[str]]:
    """Read texts to learn a language from.

    Args:
        files: Text files, in which a line is a text and an empty line ends a document, and tables,
            a document a row.
        column: Of the tables.

    Returns:
        Documents of one or more texts each, in order.

    Raises:
        DataError: If a file cannot be read or holds nothing.
    """
    documents: list[list[str]] = []
    for path in map(Path, files):
        rows = _read(path, text_rows(path, column, _TEXT_COLUMN))
        if path.suffix.lower() == ".txt":
            parts = [
                list(part)
                for is_empty, part in groupby(rows, lambda row: isinstance(row, BadRow))
                if not is_empty
            ]
            documents += [
                [text.strip() for text in _texts(part, column, path)] for part in parts or [[]]
            ]
        else:
            documents += [[text] for text in _texts(rows, column, path)]
    return documents


def read_texts(files: Sequence[str], column: str) -> list[str]:
    """Texts to predict, a line or a row each, in order.

    Args:
        files: Text files and tables.
        column: Of the tables.

    Returns:
        The texts.

    Raises:
        DataError: If a file cannot be read, holds nothing, or a row has no text.
    """
    texts: list[str] = []
    for path in map(Path, files):
        rows = list(_read(path, text_rows(path, column, _TEXT_COLUMN)))
        while path.suffix.lower() == ".txt" and rows and isinstance(rows[-1], BadRow):
            rows.pop()  # empty lines at the end are no texts
        texts += _texts(rows, column, path)
    return texts


def read_labelled(
    file: str, text_column: str, label_column: str, classes: Sequence[str] = ()
) -> tuple[TextSplit, list[str]]:
    """Read a table of texts and labels.

    Args:
        file: CSV, TSV, JSONL or Parquet.
        text_column: Column of the texts.
        label_column: Column of the labels.
        classes: Labels that may occur; none stands for those that do.

    Returns:
        Its rows in order, and the classes; those of the file in alphabetical order.

    Raises:
        DataError: If the file cannot be read, or a row lacks text or label.
    """
    path, columns = Path(file), [text_column, label_column]
    names = list(classes) or _labels(
        _read(path, read_rows(path, columns, advice=_COLUMNS)), label_column, path
    )
    reader = RowReader(text_column, label_column, None, names)
    rows = list(_read(path, read_rows(path, columns, reader.is_whole_row, advice=_COLUMNS)))
    if not rows:
        msg = f"{path} has a header and no rows; add rows to it"
        raise DataError(msg)
    split, bad = reader.read(rows, path.name, "")
    _raise_first_bad_row(bad)
    return split, names


def _labels(rows: Iterable[Row | BadRow], column: str, path: Path) -> list[str]:
    names: set[str] = set()
    bad = []
    for row in rows:
        if isinstance(row, BadRow):
            bad.append(row)
        elif (
            row.values.get(column) is not None and row.values[column] == row.values[column]
        ):  # NaN is no label
            names.add(str(row.values[column]).strip())
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


def _texts(rows: Iterable[Row | BadRow], column: str, path: Path) -> list[str]:
    good, bad = usable_rows(rows, column, path.name)
    _raise_first_bad_row(bad)
    if not good:
        msg = f"{path} holds no text"
        raise DataError(msg)
    return [row.values[column] for row in good]


def _raise_first_bad_row(bad: list[BadRow]) -> None:
    """Name the first of the bad rows, in one line."""
    more = f" ({len(bad)} bad rows in all)" if len(bad) > 1 else ""
    raise_bad_rows(bad[:1], advice=f"mend the file, or remove the row{more}")
