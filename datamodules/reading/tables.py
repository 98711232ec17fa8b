"""Readers of CSV, TSV, JSONL and Parquet files that return rows and bad rows one at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.reading.csv_rows import CsvReader
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.foreign import advice_for_suffix, check_content
from datamodules.reading.formats import FoundFormat, TableFormat, find_format
from datamodules.reading.jsonl import JsonlReader
from datamodules.reading.rows import COLUMN_ADVICE, Row, check_columns, spelled_as
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
        known = ", ".join(SUFFIXES)
        msg = f"{path}: cannot read '{suffix}' files; give one of {known}{advice_for_suffix(path)}"
        raise DataError(msg)
    if path.stat().st_size == 0:
        needs = f"it needs the columns {', '.join(needed)}" if needed else "add rows to it"
        msg = f"{path} is empty; {needs}"
        raise DataError(msg)
    if suffix == ".parquet":
        yield from _read_parquet(path, needed, advice, columns)
        return
    if isinstance(table_format, TableFormat):
        table_format = find_format(path, needed, table_format)
    if suffix == ".jsonl":
        yield from JsonlReader(path, table_format, needed, split, advice).rows()
    else:
        yield from CsvReader(
            path, table_format, needed, is_complete_row, split, advice, columns
        ).rows()


def _read_parquet(
    path: Path, needed: Sequence[str], advice: str, columns: Sequence[str] | None
) -> Iterator[Row]:
    index = 0
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        spelled = spelled_as(names, needed)
        check_columns(path, spelled, needed, advice, columns)
        name_of = dict(zip(spelled, names, strict=True))
        wanted = None if columns is None else [name_of[c] for c in columns if c in name_of]
        for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
            named = batch.rename_columns(spelled_as(batch.schema.names, needed))
            for values in named.to_pylist():
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
        check_content(path)
        msg = f"{path} is not a readable Parquet file: {brief(error)}"
        raise DataError(msg) from error
