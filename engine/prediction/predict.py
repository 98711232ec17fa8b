"""Predict new samples with a run's best checkpoint."""

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
    force: bool = False,  # noqa: FBT001, FBT002 - the command line's switch
    device: str | None = None,
    annotations: Path | None = None,
) -> Path:
    """Predict every sample of the inputs.

    Args:
        run: The run folder.
        inputs: For a text classifier one file; else images, folders of images, .txt with a path a
            line, or .parquet.
        output: .csv, .tsv, .jsonl or .parquet; None writes `<input>.predictions.csv`, or
            predictions.csv for several. For a segmenter a folder; None is `<input>.predictions`, or
            predictions for several.
        column: Of the texts or images in a table; None takes the run's.
        on_bad_rows: Stop at a sample that cannot be read, or leave it out and count it.
        force: Whether an existing output is replaced.
        device: Where to compute; None takes a GPU where there is one.
        annotations: For a segmenter a folder of masks to be shown beside; None looks beside the
            images.

    Returns:
        The output. Of a segmenter see `predict_masks`; else it holds what says which sample it is,
        `prediction`, and `probability_<class>` for each class, and a run that is stopped leaves
        what it has in a file called `<output stem>.partial<suffix>`.

    Raises:
        DataError: If an input cannot be read.
        RunFolderError: If the run folder or the output does not do.
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
            else f"a {type(trained.task).__name__} has no use for annotations"
        )
        msg = f"--annotations {annotations}: {why}"
        raise DataError(msg)
    target = output or _standard_output(inputs, "" if segments else ".csv")
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
            msg = f"a text classifier predicts one file at a time; received {', '.join(map(str, inputs))}"
            raise DataError(msg)
        done, bad = predict_texts(trained, inputs[0], target, column, on_bad_rows)
    elif isinstance(trained.task, ImageClassifier):
        done, bad = predict_images(trained, inputs, target, column, on_bad_rows)
    else:
        msg = f"{run}: nothing predicts with a {type(trained.task).__name__} yet"
        raise RunFolderError(msg)
    if not done:
        msg = f"{', '.join(map(str, inputs))}: nothing to predict ({bad} left out)"
        raise DataError(msg)
    Console(stderr=True).print(f"{done} predicted, {bad} left out", highlight=False)
    print(target)
    return target


def _standard_output(inputs: Sequence[Path], suffix: str) -> Path:
    if len(inputs) > 1:
        return Path(f"predictions{suffix}")
    only = inputs[0]
    if only.is_dir():
        return only.resolve().with_name(f"{only.resolve().name}.predictions{suffix}")
    return only.with_suffix(f".predictions{suffix}")
