"""Readers of CSV, TSV, JSONL and Parquet files that return rows and bad rows one at a time."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.reading.csv_rows import CsvReader
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.formats import FoundFormat, TableFormat, find_format
from datamodules.reading.rows import COLUMN_ADVICE, Row, check_columns
from run_folders.errors import brief

if TYPE_CHECKING:
    import pyarrow.parquet as pq

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
_BATCH = 4096  # rows of a Parquet file that are read at a time


def read_rows(
    path: Path,
    needed: Sequence[str],
    is_complete_row: Callable[[dict[str, str]], bool] | None = None,
    split: str = "",
    advice: str = COLUMN_ADVICE,
    table_format: TableFormat | FoundFormat = TableFormat(),
    columns: Sequence[str] | None = None,
) -> Iterator[Row | BadRow]:
    """Read a table row by row.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file.
        needed: Columns that the file must have.
        is_complete_row: Whether a line inside a quoted text is a complete row. A stray quote
            causes such lines. None: the usual values of the columns decide.
        split: Split that bad rows name.
        advice: Next step for the user if a column is missing.
        table_format: Encoding, delimiter and quoting of a text file.
        columns: Columns that are used; None uses all.

    Yields:
        Rows and bad rows in the file's order.

    Raises:
        DataError: If the file is empty, is damaged, has an unknown format or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        msg = f"{path}: cannot read '{suffix}' files; give one of {', '.join(SUFFIXES)}"
        raise DataError(msg)
    if path.stat().st_size == 0:
        msg = f"{path} is empty; it needs a header with the columns {', '.join(needed)}"
        raise DataError(msg)
    if suffix == ".parquet":
        yield from _read_parquet(path, needed, advice, columns)
        return
    if isinstance(table_format, TableFormat):
        table_format = find_format(path, needed, table_format)
    if suffix == ".jsonl":
        yield from _read_jsonl(path, needed, split, advice, table_format)
    else:
        yield from CsvReader(
            path, table_format, needed, is_complete_row, split, advice, columns
        ).rows()


def _read_jsonl(
    path: Path, needed: Sequence[str], split: str, advice: str, found: FoundFormat
) -> Iterator[Row | BadRow]:
    index = 0
    with found.open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            values, fault = _parsed(line, found)
            if not fault and index == 0:
                check_columns(path, list(values), needed, advice)
            missing = [] if fault else [column for column in needed if column not in values]
            if missing:
                fault = f"has no '{missing[0]}'"
            yield (
                BadRow(split, path.name, index + 1, number, fault)
                if fault
                else Row(index, number, values)
            )
            index += 1


def _parsed(line: str, found: FoundFormat) -> tuple[dict[str, Any], str]:
    """Return the object of a JSONL line and an empty string, or the fault."""
    fault = found.fault(line)
    if fault:
        return {}, fault
    try:
        values = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        return {}, f"is not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return {}, f"is no JSON that can be read: {brief(error)}"
    if not isinstance(values, dict):
        return {}, f"is not a JSON object but {type(values).__name__}"
    return values, ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"it names '{twice}' twice"
        raise ValueError(msg)
    return values


def _read_parquet(
    path: Path, needed: Sequence[str], advice: str, columns: Sequence[str] | None
) -> Iterator[Row]:
    index = 0
    with open_parquet(path) as file:
        check_columns(path, file.schema_arrow.names, needed, advice, columns)
        wanted = None if columns is None else list(columns)
        for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
            for values in batch.to_pylist():
                yield Row(index, None, values)
                index += 1
        rows = file.metadata.num_rows
    if index != rows:
        msg = f"{path} is damaged: it names {rows} rows and has {index}"
        raise DataError(msg)


@contextmanager
def open_parquet(path: Path) -> Iterator["pq.ParquetFile"]:
    """Open a Parquet file.

    Raises:
        DataError: If it is damaged, also while it is read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        msg = f"{path} is not a readable Parquet file: {brief(error)}"
        raise DataError(msg) from error
