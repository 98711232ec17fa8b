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
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from datamodules.batches import TextBatch
from datamodules.errors import BadRow, DataError, refuse
from datamodules.tables import Row, read_rows
from datamodules.text_batching import PadCollator
from datamodules.text_cleaning import Cleaning, clean
from datamodules.text_encoding import open_text
from datamodules.text_rows import text_fault
from datamodules.text_tokenizing import TextTokenizer
from engine.build import model_from_checkpoint, read_config
from engine.checkpoints import load_checkpoint
from engine.quiet import quieten
from engine.run_folder import RunFolder, RunFolderError
from engine.table_writer import TableWriter
from lightning_modules.metrics import predicted
from lightning_modules.text_classifier import TextClassifier

log = logging.getLogger(__name__)

_CHUNK = 4096  # rows read, sorted by length and written at a time
_BATCH = 64


class TextPredictor:
    """A run's best checkpoint, ready to read texts."""

    def __init__(self, folder: RunFolder, device: str | None = None) -> None:
        """Load the checkpoint.

        Args:
            folder: The run folder.
            device: Where to compute; None takes a GPU where there is one.

        Raises:
            RunFolderError: If it is no run of a text classifier.
        """
        if not folder.config.is_file():
            msg = f"{folder.path} is no run folder: it has no config.yaml"
            raise RunFolderError(msg)
        cfg = read_config(folder.config)
        checkpoint = load_checkpoint(folder.best_checkpoint)
        state = next((s for s in checkpoint.values() if isinstance(s, dict) and "tokenizer" in s), None)
        task = model_from_checkpoint(cfg, checkpoint)
        if state is None or not isinstance(task, TextClassifier):
            msg = f"{folder.path} is no run of a text classifier"
            raise RunFolderError(msg)
        self.device = _device(device)
        self.task = task.eval().to(self.device)
        self.tokenizer = TextTokenizer.from_state(state)
        self.collate = PadCollator(self.tokenizer.pad_id)
        self.class_names: list[str] = list(cfg.data.classes)
        self.text_column: str = cfg.data.text_column
        self.max_length: int = cfg.data.max_length
        # A plain mapping: reading a config node for every step of every text would take longer than the text.
        self.cleaning = Cleaning(**OmegaConf.to_container(cfg.data.cleaning))  # type: ignore[typeddict-item]
        self.autocast = cfg.trainer.precision == "bf16-mixed"

    @torch.inference_mode()
    def probabilities(self, texts: list[str]) -> torch.Tensor:
        """Class probabilities [N, K] float32 of N texts, in their order."""
        ids = self.tokenizer.encode([clean(text, self.cleaning) for text in texts], self.max_length)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        result = torch.empty(len(texts), len(self.class_names))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            batch = self.collate([(torch.tensor(ids[i], dtype=torch.int32), 0, i) for i in chosen])
            moved = TextBatch(**{key: value.to(self.device) for key, value in batch.items()})  # type: ignore[typeddict-item, attr-defined]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                result[chosen] = self.task(moved).cpu()
        return result


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        msg = f"--device {name}: {str(error).splitlines()[0]}; give cpu, or leave it out"
        raise RunFolderError(msg) from error
    return device


def predict(
    run: Path,
    input: Path,
    output: Path | None = None,
    text_column: str | None = None,
    on_bad_rows: Literal["error", "skip"] = "error",
    force: bool = False,  # noqa: FBT001, FBT002 - the command line's switch
    device: str | None = None,
) -> Path:
    """Predict every row of a file.

    Args:
        run: The run folder.
        input: .txt with a text a line, .csv, .tsv, .jsonl or .parquet.
        output: The same kinds but .txt; None writes INPUT.predictions.csv.
        text_column: None takes the run's.
        on_bad_rows: Stop at a row that cannot be read, or leave it out and count it.
        force: Whether an existing output is replaced.
        device: See `TextPredictor`.

    Returns:
        The output: the input's columns, `prediction`, and `probability_<class>` for each class. A run that is stopped
        leaves what it has in a file called `<output stem>.partial<suffix>`.

    Raises:
        DataError: If the input cannot be read.
        RunFolderError: If the run folder or the output does not do.
    """
    quieten()
    target = output or input.with_suffix(".predictions.csv")
    if not input.is_file():
        msg = f"{input}: no such file"
        raise DataError(msg)
    if target.exists() and not force:
        msg = f"{target} exists; give another -o, or --force to replace it"
        raise RunFolderError(msg)
    predictor = TextPredictor(RunFolder(run), device)
    column = text_column or predictor.text_column
    rows = _texts(input, column) if input.suffix.lower() == ".txt" else read_rows(input, [column])
    added = ["prediction", *(f"probability_{name}" for name in predictor.class_names)]
    bad, done, suspects, first_suspect = 0, 0, 0, 0
    schema = _schema(input, added) if {input.suffix.lower(), target.suffix.lower()} == {".parquet"} else None
    with TableWriter(target, schema) as writer, _progress() as progress:
        bar = progress.add_task("rows", total=None)
        while chunk := list(islice(rows, _CHUNK)):
            good, faults = _usable(chunk, column, input.name)
            suspected = [row.index + 1 for row in good if _may_hold_rows(row, column)]
            suspects, first_suspect = suspects + len(suspected), first_suspect or next(iter(suspected), 0)
            if on_bad_rows == "error":
                refuse(faults, advice="mend the file, or leave such rows out with --on-bad-rows skip")
            bad += len(faults)
            if good:
                _check_names(good[0], added, input)
                writer.write(_predicted(predictor, good, column, added))
            done += len(good)
            progress.update(bar, completed=done)
    if not done:
        msg = f"{input} has no row to predict ({bad} left out)"
        raise DataError(msg)
    Console(stderr=True).print(f"{done} rows predicted, {bad} left out", highlight=False)
    if suspects and input.suffix.lower() == ".csv":
        log.warning("%d texts span lines that look like rows, first in row %d: are quotes astray?", suspects, first_suspect)
    print(target)
    return target


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


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
    names = [predictor.class_names[k] for k in classes.tolist()]
    return [
        {**row.values, **dict(zip(added, [name, *values], strict=True))}
        for row, name, values in zip(rows, names, probabilities.tolist(), strict=True)
    ]
