"""Prediction of new texts with a run's best checkpoint.

The input is read in chunks, so that it is never in memory as a whole.
"""

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

ADVICE = "fix the file, or leave such rows out with --on-bad-rows skip"
_CHUNK = 4096  # rows read, sorted by length and written at a time
_BATCH = 64


class TextPredictor:
    """A trained text classifier with its tokenizer and text cleaning.

    Attributes:
        run: The trained run.
        tokenizer: The run's tokenizer.
        collate: The function that pads token ids to a batch.
        max_length: The largest number of tokens of a text.
        cleaning: The options of text cleaning.
    """

    def __init__(self, run: TrainedRun) -> None:
        """Load the tokenizer and the cleaning options of the run."""
        self.run = run
        self.tokenizer = TextTokenizer.from_state(run.data_state)
        self.collate = PadCollator(self.tokenizer.pad_id)
        self.max_length: int = run.cfg.data.max_length
        # A plain mapping: for each text, reading config nodes would take longer than cleaning.
        self.cleaning = Cleaning(**OmegaConf.to_container(run.cfg.data.cleaning))  # type: ignore[typeddict-item]

    def probabilities(self, texts: list[str]) -> torch.Tensor:
        """Return the class probabilities [N, K] float32 of N texts, in the order of the texts."""
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
    """Predict every row of a file and write the predictions to a table.

    Args:
        run: A trained run of a text classifier.
        input: .txt with one text per line, .csv, .tsv, .jsonl or .parquet.
        target: A .csv, .tsv, .jsonl or .parquet file. It gets the input's columns, then
            `prediction` and `probability_<class>` for each class.
        column: The column of the texts; None takes the run's.
        on_bad_rows: Stop at a row that cannot be read, or leave it out and count it.

    Returns:
        The numbers of predicted and of left out rows.

    Raises:
        DataError: If the input cannot be read, or has a column of the prediction already.
        RunFolderError: If the output's format is unknown or cannot store the columns.
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
    """Return the input's schema, followed by the added columns."""
    fields = [
        pa.field(name, pa.string() if name == "prediction" else pa.float64()) for name in added
    ]
    return pa.schema([*pq.read_schema(path), *fields])


def _check_names(row: Row, added: list[str], path: Path) -> None:
    taken = [name for name in added if name in row.values]
    if taken:
        msg = (
            f"{path} has a column {taken[0]} already, which the prediction would overwrite; "
            "rename it"
        )
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
