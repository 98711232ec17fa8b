"""Reading of Parquet files that may be damaged, or come from someone else."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from run_folders.errors import brief
from run_folders.memory import free_memory
from run_folders.untrusted import damaged

_CELL = 16  # bytes of memory that a cell needs at least
_MOST_ROWS = 2**16  # that are read at once
_TESTS = {
    int: pa.types.is_integer,
    float: pa.types.is_floating,
    str: lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    bytes: lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
}
_NOUNS = {int: "whole numbers", float: "numbers", str: "texts", bytes: "files"}


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a table of numbers, texts and binary values.

    Args:
        path: The file.

    Raises:
        DamagedFileError: If it is not Parquet, has other values, or does not fit into the memory.
    """
    if not path.is_file():
        raise damaged(path, "it is a folder, a pipe or a device")
    try:
        with pq.ParquetFile(path) as file:
            fault = _fault(file)
            table = None if fault else _table(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, brief(error)) from error
    if table is None:
        raise damaged(path, fault)
    return table


def _fault(file: pq.ParquetFile) -> str:
    """Return why a table is not read, by its header; an empty string if it is."""
    columns, metadata = file.schema_arrow, file.metadata
    for column in columns:
        if not any(test(column.type) for test in _TESTS.values()):
            return f"the column {column.name!r} has the type {column.type}"
    if len(set(columns.names)) < len(columns.names):
        return "two columns have the same name"
    needed = _encoded_size(file) + metadata.num_rows * len(columns) * _CELL
    free = free_memory()
    if needed > free:
        return f"it needs {needed:,} bytes of memory, of which {free:,} are free"
    return ""


def _encoded_size(file: pq.ParquetFile) -> int:
    """Return the bytes of the columns before their values are decoded."""
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return sum(group.total_byte_size for group in groups)


def _table(file: pq.ParquetFile) -> pd.DataFrame:
    """Read all rows.

    A value that many rows share is stored once, so a small file may need any amount of memory.

    Raises:
        ValueError: If the values do not fit into the memory.
    """
    free = free_memory()
    # No value is larger than the encoded columns.
    rows = free // (4 * max(1, _encoded_size(file)))
    batches, needed = [], 0
    for batch in file.iter_batches(batch_size=max(1, min(rows, _MOST_ROWS))):
        batches.append(batch)
        needed += 2 * batch.nbytes  # pandas needs a copy
        if needed > free:
            msg = f"it needs more memory than the {free:,} bytes that are free"
            raise ValueError(msg)
    # The metadata may name other types of columns and an index.
    table: pd.DataFrame = pa.Table.from_batches(batches, file.schema_arrow).to_pandas(
        ignore_metadata=True
    )
    return table


def check_columns(path: Path, table: pd.DataFrame, types: Mapping[str, type]) -> None:
    """Raise `DamagedFileError` if a table lacks a column, or has other values in it.

    Args:
        path: The file, for the message.
        table: Its content.
        types: Name of a column -> `int`, `float` (NaN is allowed), `str` or `bytes`.
    """
    for name, kind in types.items():
        if name not in table:
            raise damaged(path, f"it lacks the column {name!r}")
        found = pa.Array.from_pandas(table[name])
        if not _TESTS[kind](found.type) or (kind is not float and found.null_count):
            raise damaged(path, f"the column {name!r} has other values than {_NOUNS[kind]}")
