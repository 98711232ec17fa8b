"""Predict new texts with a run's best checkpoint, as a stream: the input never is in memory as a whole."""

from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf

from datamodules.reading.errors import DataError, raise_bad_rows
from datamodules.reading.tables import Row
from datamodules.reading.text_rows import text_rows, usable_rows
from datamodules.texts.batching import PadCollator
from datamodules.texts.cleaning import Cleaning, clean
from datamodules.texts.tokenizing import TextTokenizer
from engine.prediction.table_writer import TableWriter, progress
from engine.trained_run import TrainedRun
from lightning_modules.metrics.classification import predicted

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
        # A plain mapping: reading a config node for every step of every text would take longer than
        # the text.
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
    run: TrainedRun,
    input: Path,
    target: Path,
    column: str | None,
    on_bad_rows: Literal["error", "skip"],
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
    rows = text_rows(input, column)
    added = ["prediction", *(f"probability_{name}" for name in run.class_names)]
    bad, done = 0, 0
    schema = (
        _schema(input, added)
        if {input.suffix.lower(), target.suffix.lower()} == {".parquet"}
        else None
    )
    with TableWriter(target, schema) as writer, progress() as bars:
        bar = bars.add_task("rows", total=None)
        while chunk := list(islice(rows, _CHUNK)):
            good, faults = usable_rows(chunk, column, input.name)
            if on_bad_rows == "error":
                raise_bad_rows(faults, advice=ADVICE)
            bad += len(faults)
            if good:
                _check_names(good[0], added, input)
                writer.write(_predicted(predictor, good, column, added))
            done += len(good)
            bars.update(bar, completed=done)
    return done, bad


def _schema(path: Path, added: list[str]) -> pa.Schema:
    """The input's own types, and ours behind them."""
    ours = [pa.field(name, pa.string() if name == "prediction" else pa.float64()) for name in added]
    return pa.schema([*pq.read_schema(path), *ours])


def _check_names(row: Row, added: list[str], path: Path) -> None:
    taken = [name for name in added if name in row.values]
    if taken:
        msg = f"{path} has a column {taken[0]} already, which the prediction would overwrite; rename it"
        raise DataError(msg)


def _predicted(
    predictor: TextPredictor, rows: list[Row], column: str, added: list[str]
) -> list[dict[str, Any]]:
    probabilities = predictor.probabilities([row.values[column] for row in rows])
    _, classes = predicted(probabilities)
    names = [predictor.run.class_names[k] for k in classes.tolist()]
    return [
        {**row.values, **dict(zip(added, [name, *values], strict=True))}
        for row, name, values in zip(rows, names, probabilities.tolist(), strict=True)
    ]
