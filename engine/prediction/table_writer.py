"""Tables written a piece at a time: CSV, TSV, JSONL or Parquet."""

import csv
import json
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from run_folders.run_folder import RunFolderError

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


class TableWriter:
    """Writes rows to `<stem>.partial<suffix>` and renames it at the end; what a failure leaves can be read.

    A context manager. Columns are those of the first rows.
    """

    def __init__(self, target: Path, schema: pa.Schema | None = None) -> None:
        """Check the target; nothing is opened before the first rows.

        Args:
            target: The file; its suffix is the format.
            schema: Types of a Parquet file's columns; None takes those of the first rows.

        Raises:
            RunFolderError: If the format is unknown.
        """
        if target.suffix.lower() not in _SUFFIXES:
            msg = f"{target}: cannot write '{target.suffix}' files; give one of {', '.join(_SUFFIXES)}"
            raise RunFolderError(msg)
        self.target, self.schema = target, schema
        self.partial = target.with_name(f"{target.stem}.partial{target.suffix}")
        self.columns: list[str] = []
        self.text: TextIO | None = None
        self.parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> "TableWriter":
        return self

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append rows.

        Raises:
            RunFolderError: If they have other columns or types than the first rows, in a format
                that cannot hold them.
        """
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
            msg = f"{self.target}: column '{new}' is not in the first rows and cannot be added later; write .jsonl instead"
            raise RunFolderError(msg)
        if self.parquet is not None:
            filled = [{name: row.get(name) for name in self.columns} for row in rows]
            self.parquet.write_table(self._table(filled))
        elif self.text is not None:
            writer = csv.DictWriter(
                self.text,
                self.columns,
                delimiter="\t" if suffix == ".tsv" else ",",
                lineterminator="\n",
            )
            if self.text.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        try:
            if self.schema is not None:
                return pa.Table.from_pylist(rows, schema=self.schema)
            found = pa.Table.from_pylist(rows)
            # Cast behind the conversion: with a schema the conversion would cut 2.5 to 2 without a
            # word.
            return found.cast(self.parquet.schema) if self.parquet is not None else found
        except (
            pa.ArrowInvalid,
            pa.ArrowTypeError,
            pa.ArrowNotImplementedError,
            OverflowError,
            ValueError,
        ) as error:
            msg = f"{self.target}: a column does not keep one type ({error}); write .jsonl instead"
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
        """Close; rename where all went well, else say where the rows so far are."""
        for stream in (self.text, self.parquet):
            if stream is not None:
                stream.close()
        if kind is None and self.columns:
            self.partial.replace(self.target)
        elif error is not None and self.columns:
            error.add_note(f"the rows predicted so far are in {self.partial}")


def _without_nulls(schema: pa.Schema) -> pa.Schema:
    """Columns that are empty in all first rows may hold text later."""
    return pa.schema(
        [pa.field(f.name, pa.string()) if pa.types.is_null(f.type) else f for f in schema]
    )


def progress() -> Progress:
    """A bar on a terminal, nothing in a log file."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
