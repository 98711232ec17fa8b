"""Tables written a piece at a time: CSV, TSV, JSONL or Parquet."""

import csv
import json
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from engine.run_folder import RunFolderError

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


class TableWriter:
    """Writes rows to `<stem>.partial<suffix>` and renames it at the end; what a failure leaves can be read.

    A context manager. Columns are those of the first rows.
    """

    def __init__(self, target: Path) -> None:
        """Check the target; nothing is opened before the first rows.

        Args:
            target: The file; its suffix is the format.

        Raises:
            RunFolderError: If the format is unknown.
        """
        if target.suffix.lower() not in _SUFFIXES:
            msg = f"{target}: cannot write '{target.suffix}' files; give one of {', '.join(_SUFFIXES)}"
            raise RunFolderError(msg)
        self.target = target
        self.partial = target.with_name(f"{target.stem}.partial{target.suffix}")
        self.columns: list[str] = []
        self.text: TextIO | None = None
        self.parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> "TableWriter":
        return self

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append rows.

        Raises:
            RunFolderError: If they do not have the first rows' columns and types.
        """
        if not self.columns:
            self._open(rows)
        if self.parquet is not None:
            try:
                self.parquet.write_table(pa.Table.from_pylist(rows, schema=self.parquet.schema))
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                msg = f"{self.target}: a column changes its type on the way ({error}); write .jsonl instead"
                raise RunFolderError(msg) from error
        elif self.text is not None and self.target.suffix.lower() == ".jsonl":
            self.text.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        elif self.text is not None:
            delimiter = "\t" if self.target.suffix.lower() == ".tsv" else ","
            writer = csv.DictWriter(self.text, self.columns, delimiter=delimiter, extrasaction="ignore", lineterminator="\n")
            if self.text.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)

    def _open(self, rows: list[dict[str, Any]]) -> None:
        self.columns = list(rows[0])
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        if self.target.suffix.lower() == ".parquet":
            self.parquet = pq.ParquetWriter(self.partial, pa.Table.from_pylist(rows).schema)
        else:
            self.text = self.partial.open("w", encoding="utf-8", newline="")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Close; rename where all went well, else say where the rows so far are."""
        for stream in (self.text, self.parquet):
            if stream is not None:
                stream.close()
        if kind is None and self.columns:
            self.partial.replace(self.target)
        elif error is not None and self.columns:
            error.add_note(f"the rows predicted so far are in {self.partial}")
