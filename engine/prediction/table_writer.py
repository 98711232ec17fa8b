"""Incremental writing of tables: CSV, TSV, JSONL or Parquet."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from run_folders.csv_text import csv_writer
from run_folders.errors import brief
from run_folders.run_folder import RunFolderError

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class OutputColumns:
    """The columns that a prediction adds to a table.

    Attributes:
        types: Name of each column -> str or float.
        rows: Called with predictions [B, ...] of the task; returns the columns of each sample.
    """

    types: Mapping[str, type]
    rows: Callable[[Tensor], list[dict[str, Any]]]


class TableWriter:
    """Context manager that writes rows to `<stem>.partial<suffix>` and renames it at the end.

    After a failure the partial file remains if rows can be read from it, and the error's note says
    so. The columns are those of the first rows.

    Attributes:
        target: The final file.
        partial: The file while it is written.
        schema: The types of a Parquet file's columns; None takes those of the first rows.
        columns: The names of the columns; empty before the first rows.
        text: The open file of a text format.
        parquet: The writer of a Parquet file.
        rows: The number of rows that a text format has written completely.
        size: Their size in bytes.
    """

    def __init__(self, target: Path, schema: pa.Schema | None = None) -> None:
        """Check the target; the file is opened when the first rows are written.

        Args:
            target: The file; its suffix selects the format.
            schema: The types of a Parquet file's columns; None takes those of the first rows.

        Raises:
            RunFolderError: If the format is unknown.
        """
        if target.suffix.lower() not in _SUFFIXES:
            known = ", ".join(_SUFFIXES)
            msg = f"{target}: cannot write '{target.suffix}' files; give one of {known}"
            raise RunFolderError(msg)
        self.target, self.schema = target, schema
        self.partial = target.with_name(f"{target.stem}.partial{target.suffix}")
        self.columns: list[str] = []
        self.text: TextIO | None = None
        self.parquet: pq.ParquetWriter | None = None
        self.rows = self.size = 0

    def __enter__(self) -> "TableWriter":
        return self

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append rows.

        Raises:
            RunFolderError: If the columns or types differ from those of the first rows, and the
                format does not allow it, or if the file cannot be written.
        """
        with self._naming_file():
            self._write(rows)
            if self.text is not None:
                self.text.flush()
                self.rows, self.size = self.rows + len(rows), self.partial.stat().st_size

    def _write(self, rows: list[dict[str, Any]]) -> None:
        suffix = self.target.suffix.lower()
        if not self.columns:
            self._open(rows)
        if self.text is not None and suffix == ".jsonl":
            self.text.writelines(
                json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows
            )
            return
        new = next((name for row in rows for name in row if name not in self.columns), None)
        if new is not None:
            msg = (
                f"{self.target}: column '{new}' is not in the first rows and cannot be added "
                "later; write .jsonl instead"
            )
            raise RunFolderError(msg)
        if self.parquet is not None:
            filled = [{name: row.get(name) for name in self.columns} for row in rows]
            self.parquet.write_table(self._table(filled))
        elif self.text is not None:
            writer = csv_writer(self.text, "\t" if suffix == ".tsv" else ",")
            if self.text.tell() == 0:
                writer.writerow(self.columns)
            writer.writerows([row.get(name) for name in self.columns] for row in rows)

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        try:
            if self.schema is not None:
                return pa.Table.from_pylist(rows, schema=self.schema)
            found = pa.Table.from_pylist(rows)
            # Cast after the conversion: with a schema, the conversion itself would silently
            # truncate 2.5 to 2.
            return found.cast(self.parquet.schema) if self.parquet is not None else found
        except (
            pa.ArrowInvalid,
            pa.ArrowTypeError,
            pa.ArrowNotImplementedError,
            OverflowError,
            ValueError,
        ) as error:
            msg = f"{self.target}: a column has more than one type ({error}); write .jsonl instead"
            raise RunFolderError(msg) from error

    def _open(self, rows: list[dict[str, Any]]) -> None:
        self.columns = list(dict.fromkeys(name for row in rows for name in row))
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        if self.target.suffix.lower() == ".parquet":
            schema = self.schema or _without_nulls(self._table(rows).schema)
            self.parquet = pq.ParquetWriter(self.partial, schema)
        else:
            self.text = self.partial.open(
                "w", encoding="utf-8", newline="", errors="backslashreplace"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close and rename the file; after an error, add to it where the rows so far are."""
        if error is not None:
            with suppress(Exception):  # the first error is reported
                self._close()
        else:
            try:
                with self._naming_file():
                    self._close()
                    if self.columns:
                        self.partial.replace(self.target)
            except BaseException as failure:
                failure.add_note(self._remainder())
                raise
        if error is not None and self.columns:
            error.add_note(self._remainder())

    def _close(self) -> None:
        for stream in (self.text, self.parquet):
            if stream is not None:
                stream.close()

    @contextmanager
    def _naming_file(self) -> Iterator[None]:
        """Name the file in an error of the operating system, such as a full disk."""
        try:
            yield
        except OSError as error:
            msg = f"{self.target} cannot be written: {brief(error)}; free space, or change -o"
            raise RunFolderError(msg) from error

    def _remainder(self) -> str:
        """Keep the rows that can be read, or remove the partial file; say which."""
        rows = 0
        with suppress(OSError, pa.ArrowException):
            if self.parquet is not None:
                rows = pq.read_metadata(self.partial).num_rows
            elif self.text is not None:
                os.truncate(self.partial, self.size)  # a row may have been written in part
                rows = self.rows
        if rows:
            return f"the rows predicted so far are in {self.partial}"
        if self.text is not None or self.parquet is not None:
            self.partial.unlink(missing_ok=True)
        return "no predicted row was kept"


def _without_nulls(schema: pa.Schema) -> pa.Schema:
    """Return the schema with text in place of null: an empty column may contain text later."""
    return pa.schema(
        [pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in schema]
    )
