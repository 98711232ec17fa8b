"""Prediction of new samples with a run's best checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from datamodules.reading.errors import DataError
from engine.kinds.base import PredictionRequest, results_of
from engine.library_warnings import filter_known
from engine.trained_run import open_run


def predict(
    run: Path,
    inputs: Sequence[Path],
    output: Path | None = None,
    column: str | None = None,
    on_bad_rows: Literal["error", "skip"] = "error",
    force: bool = False,  # noqa: FBT001, FBT002 - a flag of the command line
    device: str | None = None,
    annotations: Path | None = None,
) -> Path:
    """Predict every sample of the inputs.

    A table of predictions has the columns that identify the sample, and those of the kind of task:
    for classification `prediction`, and `probability_<class>` for each class. If prediction stops
    early, the rows so far are in `<output stem>.partial<suffix>`. For the files of segmentation see
    `predict_masks`.

    Args:
        run: The run folder.
        inputs: One file of texts. Otherwise images, folders of images, .txt with one path per line,
            or .parquet.
        output: A .csv, .tsv, .jsonl or .parquet file; a folder for segmentation. None takes
            `<input>.predictions.csv` for one input and predictions.csv for several; for
            segmentation `<input>.predictions` and predictions.
        column: The column of the texts or images in a table; None takes the run's.
        on_bad_rows: Stop at a sample that cannot be read, or leave it out and count it.
        force: Whether to replace an existing output.
        device: The device that computes; None takes a GPU if there is one.
        annotations: For segmentation, a folder of annotated masks to show beside the predictions;
            None looks for one beside the images.

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
    trained = open_run(run, device)
    request = PredictionRequest(inputs, output, column, on_bad_rows, force, annotations)
    target, done, bad = results_of(trained.task.kind).predict(trained, request)
    if not done:
        msg = f"{', '.join(map(str, inputs))}: nothing to predict ({bad} left out)"
        raise DataError(msg)
    Console(stderr=True).print(f"{done} predicted, {bad} left out", highlight=False)
    print(target)
    return target
