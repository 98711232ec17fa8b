"""Predict new texts with a run's best checkpoint, as a stream: the input never is in memory as a whole."""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf

from datamodules.errors import BadRow, DataError, refuse
from datamodules.tables import Row, read_rows
from datamodules.text_batching import PadCollator
from datamodules.text_cleaning import Cleaning, clean
from datamodules.text_encoding import open_text
from datamodules.text_rows import text_fault
from datamodules.text_tokenizing import TextTokenizer
from engine.table_writer import TableWriter, progress
from engine.trained_run import TrainedRun
from lightning_modules.metrics import predicted

log = logging.getLogger(__name__)

ADVICE = "mend the file, or leave such rows out with --on-bad-rows skip"
_CHUNK = 4096  # rows read, sorted by length and written at a time
_BATCH = 64


class TextPredictor:
    """A trained run, ready to read texts."""

    def __init__(self, run: TrainedRun) -> None:
        """Take the tokenizer and the cleaning from the run."""
        self.run = run
        self.tokenizer = TextTokenizer.from_state(run.data_state)
        self.collate = PadCollator(self.tokenizer.pad_id)
        self.max_length: int = run.cfg.data.max_length
        # A plain mapping: reading a config node for every step of every text would take longer than the text.
        self.cleaning = Cleaning(**OmegaConf.to_container(run.cfg.data.cleaning))  # type: ignore[typeddict-item]

    def probabilities(self, texts: list[str]) -> torch.Tensor:
        """Class probabilities [N, K] float32 of N texts, in their order."""
        ids = self.tokenizer.encode([clean(text, self.cleaning) for text in texts], self.max_length)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        result = torch.empty(len(texts), len(self.run.class_names))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            batch = self.collate([(torch.tensor(ids[i], dtype=torch.int32), 0, i) for i in chosen])
            result[chosen] = self.run.predict(batch)
        return result


def predict_texts(
    run: TrainedRun, input: Path, target: Path, column: str | None, on_bad_rows: Literal["error", "skip"]
) -> tuple[int, int]:
    """Predict every row of a file.

    Args:
        run: Of a text classifier.
        input: .txt with a text a line, .csv, .tsv, .jsonl or .parquet.
        target: The same kinds but .txt: the input's columns, and ours behind them.
        column: Of the texts; None takes the run's.
        on_bad_rows: Stop at a row that cannot be read, or leave it out and count it.

    Returns:
        Rows predicted and rows left out.

    Raises:
        DataError: If the input cannot be read.
        RunFolderError: If the output does not do.
    """
    predictor = TextPredictor(run)
    column = column or str(run.cfg.data.text_column)
    rows = _texts(input, column) if input.suffix.lower() == ".txt" else read_rows(input, [column])
    added = ["prediction", *(f"probability_{name}" for name in run.class_names)]
    bad, done, suspects, first_suspect = 0, 0, 0, 0
    schema = _schema(input, added) if {input.suffix.lower(), target.suffix.lower()} == {".parquet"} else None
    with TableWriter(target, schema) as writer, progress() as bars:
        bar = bars.add_task("rows", total=None)
        while chunk := list(islice(rows, _CHUNK)):
            good, faults = _usable(chunk, column, input.name)
            suspected = [row.index + 1 for row in good if _may_hold_rows(row, column)]
            suspects, first_suspect = suspects + len(suspected), first_suspect or next(iter(suspected), 0)
            if on_bad_rows == "error":
                refuse(faults, advice=ADVICE)
            bad += len(faults)
            if good:
                _check_names(good[0], added, input)
                writer.write(_predicted(predictor, good, column, added))
            done += len(good)
            bars.update(bar, completed=done)
    if suspects and input.suffix.lower() == ".csv":
        log.warning("%d texts span lines that look like rows, first in row %d: are quotes astray?", suspects, first_suspect)
    return done, bad


def _texts(path: Path, column: str) -> Iterator[Row | BadRow]:
    if path.stat().st_size == 0:
        msg = f"{path} is empty; give a text a line"
        raise DataError(msg)
    with open_text(path) as lines:
        for index, line in enumerate(lines):
            yield Row(index, index + 1, {column: line.rstrip("\r\n")})


def _usable(chunk: list[Row | BadRow], column: str, file: str) -> tuple[list[Row], list[BadRow]]:
    good, faults = [], []
    for row in chunk:
        if isinstance(row, BadRow):
            faults.append(row)
            continue
        reason = text_fault(row.values.get(column), column)
        if reason:
            faults.append(BadRow("", file, row.index + 1, row.line, reason))
        else:
            good.append(row)
    return good, faults


def _schema(path: Path, added: list[str]) -> pa.Schema:
    """The input's own types, and ours behind them."""
    ours = [pa.field(name, pa.string() if name == "prediction" else pa.float64()) for name in added]
    return pa.schema([*pq.read_schema(path), *ours])


def _check_names(row: Row, added: list[str], path: Path) -> None:
    taken = [name for name in added if name in row.values]
    if taken:
        msg = f"{path} has a column {taken[0]} already, which the prediction would overwrite; rename it"
        raise DataError(msg)


def _may_hold_rows(row: Row, column: str) -> bool:
    """Whether a line inside the text has as many commas as a row: a pair of stray quotes may have swallowed rows."""
    commas = len(row.values) - 1
    return commas > 1 and any(line.count(",") == commas for line in str(row.values[column]).splitlines()[1:])


def _predicted(predictor: TextPredictor, rows: list[Row], column: str, added: list[str]) -> list[dict[str, Any]]:
    probabilities = predictor.probabilities([row.values[column] for row in rows])
    _, classes = predicted(probabilities)
    names = [predictor.run.class_names[k] for k in classes.tolist()]
    return [
        {**row.values, **dict(zip(added, [name, *values], strict=True))}
        for row, name, values in zip(rows, names, probabilities.tolist(), strict=True)
    ]
