"""Prediction of new samples with a run's best checkpoint."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from datamodules.reading.errors import DataError
from datamodules.reading.formats import TableFormat
from engine.checkpoints import load_checkpoint
from engine.config.recorded import read_trained_config
from engine.kinds.base import PredictionRequest, results_of
from engine.processes.library_warnings import filter_known
from engine.processes.terminal import console
from engine.trained_run import (
    TrainedRun,
    data_state,
    model_from_checkpoint,
    set_merged_tokens,
)
from lightning_modules.networks.tokens.merging import MergedTokens
from run_folders.errors import brief, one_line
from run_folders.run_folder import RunFolder, RunFolderError


def predict(
    run: Path,
    inputs: Sequence[Path],
    output: Path | None = None,
    column: str | None = None,
    on_bad_rows: Literal["error", "skip"] = "error",
    force: bool = False,  # noqa: FBT001, FBT002 - a flag of the command line
    device: str | None = None,
    annotations: Path | None = None,
    table_format: TableFormat = TableFormat(),
    merge_tokens: MergedTokens | None = None,
) -> Path:
    """Predict every sample of the inputs.

    A table of predictions has the columns that identify the sample, and those of the kind of task:
    for classification `prediction`, and `probability_<class>` for each class. If prediction stops
    early, the rows so far are in `<output stem>.partial<suffix>`, as far as they can be read. For
    the files of segmentation see `predict_masks`.

    Args:
        run: The run folder.
        inputs: One file of texts. Otherwise images, folders of images, .txt with one path per line,
            or a table.
        output: A .csv, .tsv, .jsonl or .parquet file; a folder for segmentation. None takes
            `<input>.predictions.csv` for one input and predictions.csv for several; for
            segmentation `<input>.predictions` and predictions.
        column: The column of the texts or images in a table; None takes the run's.
        on_bad_rows: Stop at a sample that cannot be read, or leave it out and count it.
        force: Whether to replace an existing output.
        device: The device that computes; None takes a GPU if there is one.
        annotations: For segmentation, a folder of annotated masks to show beside the predictions;
            None looks for one beside the images.
        table_format: Encoding, delimiter and quoting of a text file; what is not set is found.
        merge_tokens: See `open_run`.

    Returns:
        The path of the output.

    Raises:
        DataError: If an input cannot be read, or nothing can be predicted.
        RunFolderError: If the run folder is unusable, or the output exists or has an unknown
            format.
    """
    filter_known()
    for path in inputs:
        if not path.exists():
            msg = f"{path}: no such file"
            raise DataError(msg)
    if annotations is not None and not annotations.is_dir():
        msg = f"--annotations {annotations}: no such folder"
        raise DataError(msg)
    trained = open_run(run, device, merge_tokens)
    table_format = replace(table_format, option="--")  # for messages
    request = PredictionRequest(
        inputs, output, column, on_bad_rows, force, annotations, table_format
    )
    target, done, bad = results_of(trained.task.kind).predict(trained, request)
    if not done:
        msg = f"{', '.join(map(str, inputs))}: nothing to predict ({bad} left out)"
        raise DataError(msg)
    console(stderr=True).print(f"{done} predicted, {bad} left out", highlight=False)
    print(one_line(target))
    return target


def open_run(
    path: Path, device: str | None = None, merge_tokens: MergedTokens | None = None
) -> TrainedRun:
    """Load a run's best checkpoint, without the hub or the backbone's folder.

    Args:
        path: The run folder.
        device: The device that computes; None for a GPU if there is one, else the CPU.
        merge_tokens: How blocks of a vision transformer merge tokens, as `model.merge_tokens`; None
            takes that of the training.

    Returns:
        The run.

    Raises:
        RunFolderError: If the path is not a run folder, or the device does not exist.
        ConfigError: If the run has no tokens to merge.
        TokenError: If its network does not allow it.
        CheckpointError: If the checkpoint is missing or damaged.
        DamagedFileError: If config or checkpoint are damaged, or do not belong together.
    """
    folder = RunFolder(path)
    if not os.path.lexists(folder.config):
        raise folder.no_run(folder.config.name)
    cfg = read_trained_config(folder.config)
    set_merged_tokens(cfg, merge_tokens)
    checkpoint = load_checkpoint(folder.best_checkpoint)
    state = data_state(cfg, checkpoint, folder.best_checkpoint)
    task = model_from_checkpoint(cfg, checkpoint, folder.best_checkpoint)
    target = _device(device)
    return TrainedRun(cfg, task.eval().to(target), state, target)


def _device(name: str | None) -> torch.device:
    """Return the device, and check that it can compute."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        msg = f"--device {name}: {brief(error)}; give cpu, or leave it out"
        raise RunFolderError(msg) from error
    return device
