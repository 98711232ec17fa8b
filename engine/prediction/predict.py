"""Prediction of new samples with a run's best checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from datamodules.reading.errors import DataError
from engine.library_warnings import filter_known
from engine.prediction.images import predict_images
from engine.prediction.masks import predict_masks
from engine.prediction.texts import predict_texts
from engine.trained_run import open_run
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.segmenter import Segmenter
from lightning_modules.text_classifier import TextClassifier
from run_folders.run_folder import RunFolderError


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

    A table of a classifier has the columns that identify the sample, `prediction`, and
    `probability_<class>` for each class. If prediction stops early, the rows so far are in
    `<output stem>.partial<suffix>`. For the files of a segmenter see `predict_masks`.

    Args:
        run: The run folder.
        inputs: One file for a text classifier. Otherwise images, folders of images, .txt with one
            path per line, or .parquet.
        output: A .csv, .tsv, .jsonl or .parquet file; a folder for a segmenter. None takes
            `<input>.predictions.csv` for one input and predictions.csv for several; for a segmenter
            `<input>.predictions` and predictions.
        column: The column of the texts or images in a table; None takes the run's.
        on_bad_rows: Stop at a sample that cannot be read, or leave it out and count it.
        force: Whether to replace an existing output.
        device: The device that computes; None takes a GPU if there is one.
        annotations: For a segmenter, a folder of annotated masks to show beside the predictions;
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
    trained = open_run(run, device)
    segments = isinstance(trained.task, Segmenter)
    if annotations is not None and not (segments and annotations.is_dir()):
        why = (
            "no such folder"
            if segments
            else f"a {type(trained.task).__name__} does not use annotations"
        )
        msg = f"--annotations {annotations}: {why}"
        raise DataError(msg)
    target = output or _default_output(inputs, "" if segments else ".csv")
    if segments and target.exists() and not target.is_dir():
        msg = f"{target} is a file; masks are written into a folder: give another -o"
        raise RunFolderError(msg)
    if not segments and target.exists() and not force:
        msg = f"{target} exists; give another -o, or --force to replace it"
        raise RunFolderError(msg)
    if segments:
        done, bad = predict_masks(
            trained, inputs, target, column, on_bad_rows, annotations, force=force
        )
    elif isinstance(trained.task, TextClassifier):
        if len(inputs) > 1 or inputs[0].is_dir():
            received = ", ".join(map(str, inputs))
            msg = f"a text classifier predicts one file at a time; received {received}"
            raise DataError(msg)
        done, bad = predict_texts(trained, inputs[0], target, column, on_bad_rows)
    elif isinstance(trained.task, ImageClassifier):
        done, bad = predict_images(trained, inputs, target, column, on_bad_rows)
    else:
        msg = f"{run}: prediction with a {type(trained.task).__name__} is not supported"
        raise RunFolderError(msg)
    if not done:
        msg = f"{', '.join(map(str, inputs))}: nothing to predict ({bad} left out)"
        raise DataError(msg)
    Console(stderr=True).print(f"{done} predicted, {bad} left out", highlight=False)
    print(target)
    return target


def _default_output(inputs: Sequence[Path], suffix: str) -> Path:
    if len(inputs) > 1:
        return Path(f"predictions{suffix}")
    path = inputs[0]
    if path.is_dir():
        return path.resolve().with_name(f"{path.resolve().name}.predictions{suffix}")
    return path.with_suffix(f".predictions{suffix}")
