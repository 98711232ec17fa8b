"""Prediction of new texts with a run's best checkpoint.

The input is read in chunks, so that it is never in memory as a whole.
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from omegaconf import OmegaConf

from datamodules.reading.errors import BadRow, DataError, check_count, raise_bad_rows
from datamodules.reading.formats import DELIMITERS, TableFormat, find_format, unused_settings
from datamodules.reading.progress import progress
from datamodules.reading.rows import PREDICTION_ADVICE, Row, spelled_as
from datamodules.reading.tables import TEXT_SUFFIXES, open_parquet, read_rows
from datamodules.reading.text_rows import text_rows, usable_rows
from datamodules.texts.batching import PadCollator, TokenizedTexts, longest_first
from datamodules.texts.cleaning import Cleaning, clean
from datamodules.texts.tokenizing import TextTokenizer
from engine.prediction.table_writer import OutputColumns, TableWriter
from engine.trained_run import TrainedRun
from run_folders.errors import truncation

log = logging.getLogger(__name__)

ADVICE = "fix the file, or leave such rows out with --on-bad-rows skip"
_CHUNK = 4096  # rows read, sorted by length and written at a time
_BATCH = 64


class TextPredictor:
    """A trained run of texts with its tokenizer and text cleaning.

    Attributes:
        run: The trained run.
        tokenizer: The run's tokenizer.
        collate: The function that pads token ids to a batch.
        max_length: The largest number of tokens of a text.
        cleaning: The options of text cleaning.
        truncated: Number of predicted texts that were longer than `max_length`.
    """

    truncated = 0

    def __init__(self, run: TrainedRun) -> None:
        """Load the tokenizer and the cleaning options of the run."""
        self.run = run
        self.tokenizer = TextTokenizer.from_state(run.data_state)
        self.collate = PadCollator(self.tokenizer.pad_id)
        usable = run.task.input_limits().get("max_tokens")
        self.max_length: int = min(run.cfg.data.max_length, usable or run.cfg.data.max_length)
        # A plain mapping: for each text, reading config nodes would take longer than cleaning.
        self.cleaning = Cleaning(**OmegaConf.to_container(run.cfg.data.cleaning))  # type: ignore[typeddict-item]

    def predictions(self, texts: list[str]) -> torch.Tensor:
        """Return the task's predictions of N texts, [N, ...], in the order of the texts."""
        cleaned = (clean(text, self.cleaning) for text in texts)
        ids = self.tokenizer.encode(cleaned, self.max_length)
        self.truncated += ids.truncated
        samples = TokenizedTexts(ids, np.zeros(len(texts), np.int64), np.arange(len(texts)))
        batches = longest_first(samples.lengths, _BATCH).batches
        parts = [self.run.predict(self.collate([samples[i] for i in batch])) for batch in batches]
        order = torch.tensor([i for batch in batches for i in batch])
        return torch.cat(parts)[order.argsort()]

    def rows(
        self, rows: Sequence[Row], column: str, output: OutputColumns, file: str
    ) -> list[dict[str, Any]]:
        """Return rows with a usable text, each followed by the columns of its prediction.

        Args:
            rows: The rows.
            column: The column of the texts.
            output: The columns of the prediction.
            file: The name of the file, for messages.

        Raises:
            DataError: If a row has a column of the prediction already.
        """
        _check_names(rows, output, file)
        predictions = self.predictions([row.values[column] for row in rows])
        pairs = zip(rows, output.rows(predictions), strict=True)
        return [{**row.values, **added} for row, added in pairs]


def rows_of(
    path: Path, column: str, table_format: TableFormat = TableFormat()
) -> Iterator[Row | BadRow]:
    """Return the rows of a file of texts.

    Args:
        path: .txt with one text per line, .csv, .tsv, .jsonl or .parquet.
        column: The column of the texts.
        table_format: Encoding, delimiter and quoting of a text file.

    Raises:
        DataError: If the file cannot be read.
    """
    unused = unused_settings(path, table_format)
    if unused:
        raise DataError(unused)
    if path.suffix.lower() not in TEXT_SUFFIXES:
        return iter(text_rows(path, column, PREDICTION_ADVICE, table_format))
    found = find_format(path, [column], table_format)
    log.info("%s: read as %s", path.name, found)
    return iter(read_rows(path, [column], advice=PREDICTION_ADVICE, table_format=found))


def predict_texts(
    run: TrainedRun,
    inputs: Sequence[Path],
    target: Path,
    column: str | None,
    on_bad_rows: Literal["error", "skip"],
    output: OutputColumns,
    table_format: TableFormat = TableFormat(),
) -> tuple[int, int]:
    """Predict every row of a file and write the predictions to a table.

    Args:
        run: A trained run of texts.
        inputs: One file: .txt with one text per line, .csv, .tsv, .jsonl or .parquet.
        target: A .csv, .tsv, .jsonl or .parquet file. It gets the input's columns, then those of
            the prediction.
        column: The column of the texts; None takes the run's.
        on_bad_rows: Stop at a row that cannot be read, or leave it out and count it.
        output: The columns of the prediction.
        table_format: Encoding, delimiter and quoting of a text file.

    Returns:
        The numbers of predicted and of left out rows.

    Raises:
        DataError: If the input cannot be read, or has a column of the prediction already.
        RunFolderError: If the output's format is unknown or cannot store the columns.
    """
    if len(inputs) > 1 or inputs[0].is_dir():
        received = ", ".join(map(str, inputs))
        msg = f"texts are predicted one file at a time; received {received}"
        raise DataError(msg)
    input = inputs[0]
    predictor = TextPredictor(run)
    column = column or str(run.cfg.data.text_column)
    rows = rows_of(input, column, table_format)
    bad = done = number = 0
    schema = (
        _schema(input, column, output)
        if {input.suffix.lower(), target.suffix.lower()} == {".parquet"}
        else None
    )
    with TableWriter(target, schema) as writer, progress(f"predicting {input.name}") as advance:
        while chunk := list(islice(rows, _CHUNK)):
            good, faults = usable_rows(chunk, column, input.name)
            if on_bad_rows == "error":
                raise_bad_rows(faults, advice=ADVICE)
            bad += len(faults)
            if not number and input.suffix.lower() == ".txt" and good:
                _warn_of_table(str(good[0].values[column]), column, input)
            if good:
                writer.write(predictor.rows(good, column, output, str(input)))
            done += len(good)
            advance(len(chunk))
            number = chunk[-1].number
    if predictor.truncated:
        text = truncation(predictor.truncated, done, predictor.max_length)
        log.warning("%s: %s and cut off there", input.name, text)
    check_count(input.name, number, done, bad)
    return done, bad


def _warn_of_table(line: str, column: str, path: Path) -> None:
    """Log a warning if the first text of a .txt file is rather the header of a table."""
    for delimiter in DELIMITERS:
        names = [name.strip(' "') for name in line.split(delimiter)]
        if len(names) > 1 and column in names:
            log.warning(
                "%s: the first line looks like the header of a table, and each line is read as a "
                "text; to read its column '%s', rename the file to .csv or .tsv",
                path.name,
                column,
            )
            return


def _schema(path: Path, column: str, output: OutputColumns) -> pa.Schema:
    """Return the input's schema as its rows are read, followed by the columns of the prediction."""
    fields = [
        pa.field(name, pa.string() if cls is str else pa.float64())
        for name, cls in output.types.items()
    ]
    with open_parquet(path) as file:
        schema = file.schema_arrow
        names = spelled_as(schema.names, [column])
        return pa.schema([*(f.with_name(n) for f, n in zip(schema, names, strict=True)), *fields])


def _check_names(rows: Sequence[Row], output: OutputColumns, file: str) -> None:
    """Raise `DataError` if a row has a column of the prediction; in JSONL only some rows may."""
    for row in rows:
        taken = [name for name in output.types if name in row.values]
        if taken:
            msg = (
                f"{file}, row {row.number}: there is a column {taken[0]} already, "
                "which the prediction would overwrite; rename it"
            )
            raise DataError(msg)
