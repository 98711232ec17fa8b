"""Find out whether the samples of a table have several labels each."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.inferring.columns import LABEL_NAMES, Column
from datamodules.inferring.table_source import LocalTable
from datamodules.inferring.tables import tables_of
from datamodules.reading.formats import TableFormat

_SEPARATORS = (";", "|", ",")
_SWITCH = frozenset(("0", "1", "true", "false"))
_MOST_LABELS = 100
_LEAST_SHARE = 0.05  # of the samples that have more than one label
_WORDS = 3  # of a label


def first_table(path: Path) -> Path | None:
    """Return the table of train in a folder, else the first one; a file is its own."""
    if path.is_file():
        return path
    tables = tables_of(path)
    names = tables.get("train") or [name for found in tables.values() for name in found]
    return path / names[0] if names else None


def sample_columns(path: Path) -> list[Column]:
    """Return the columns of a dataset's first table with the values of some rows.

    Raises:
        DataError: If the table cannot be read, or has no header.
    """
    table = first_table(path)
    return [] if table is None else LocalTable(table, TableFormat()).columns()


def guess_labels(path: Path) -> dict[str, Any]:
    """Return the settings of several labels for each sample; empty if there is one label.

    Raises:
        DataError: If the table cannot be read, or has no header.
    """
    columns = sample_columns(path)
    for column in columns:
        separator = _separator(column)
        others = (other for other in columns if other is not column)
        if separator and any(map(_is_sample, others)):
            return {"label_column": column.name, "label_separator": separator}
    named = any(column.name.strip().lower() in ("label", *LABEL_NAMES) for column in columns)
    switches = [column.name for column in columns if set(column.labels) <= _SWITCH]
    switches = [c.name for c in columns if c.name in switches and len(c.labels) > 1]
    if len(switches) > 1 and not named:
        return {"label_column": switches, "classes": switches}
    return {}


def _is_sample(column: Column) -> bool:
    """Return whether a column may have the texts or images, and not only labels."""
    return column.is_image() or (column.is_string() and not column.is_label())


def _separator(column: Column) -> str:
    """Return the string between the labels in a column; empty if it has no such labels."""
    lists = [value for value in column.values if isinstance(value, list)]
    if lists:
        return _SEPARATORS[0] if _are_labels(lists) else ""
    texts = [value for value in column.values if isinstance(value, str)]
    for separator in _SEPARATORS:
        parts = [text.split(separator) for text in texts if separator in text]
        if len(parts) > _LEAST_SHARE * len(texts):
            alone = [[text] for text in texts if separator not in text]
            if _are_labels([*parts, *alone]):
                return separator
    return ""


def _are_labels(samples: Sequence[Sequence[Any]]) -> bool:
    """Return whether the parts of some values are few different, short names."""
    counts = Counter(str(part).strip() for parts in samples for part in parts)
    counts.pop("", None)
    short = all(len(name.split()) <= _WORDS for name in counts)
    return short and 1 < len(counts) <= _MOST_LABELS and 2 * len(counts) <= counts.total()
