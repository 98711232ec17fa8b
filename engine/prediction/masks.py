"""Predict the masks of new images with a run's best checkpoint."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console

from datamodules.images.decoding import BadImageError, decode_image, decode_mask
from datamodules.images.rows import EncodedImage
from datamodules.images.storage import in_threads
from datamodules.masks.class_list import ClassList
from datamodules.masks.rows import SegmentationReader
from datamodules.reading.errors import BadRow, DataError, raise_bad_rows
from engine.prediction.images import ADVICE, images_of
from engine.prediction.table_writer import progress
from engine.segmentation_results import predicted_labels
from engine.trained_run import TrainedRun
from lightning_modules.metrics.segmentation import SegmentationTotals
from reports.triptychs import coloured, encoded, triptych
from run_folders.run_folder import RunFolderError, write_atomically

log = logging.getLogger(__name__)

_BATCH = 4

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Wanted:
    """An image to be predicted.

    Attributes:
        image: As read.
        name: What its files' names begin with.
        annotation: Its mask, where there is one.
        asked_for: Whether the user named the masks, or they were found beside the images.
    """

    image: EncodedImage
    name: Path
    annotation: Path | None
    asked_for: bool


def predict_masks(
    run: TrainedRun,
    inputs: Sequence[Path],
    target: Path,
    column: str | None,
    on_bad_rows: Literal["error", "skip"],
    annotations: Path | None = None,
    *,
    force: bool = False,
) -> tuple[int, int]:
    """Predict images, each at its own size.

    Args:
        run: Of a segmenter.
        inputs: Images, folders of images, .txt with a path a line, or .parquet.
        target: Folder for `<name>.labels.png`, with the values that the dataset's own masks have;
            `<name>.colours.png`, in the classes' colours; and `<name>.overview.png`, input,
            prediction and annotation side by side with a legend.
        column: Of the images in .parquet; None takes the run's.
        on_bad_rows: Stop at an image that cannot be read, or leave it out and count it.
        annotations: Folder of masks with the images' names; None looks for the one that the
            dataset's layout has beside the folder of the images, where what cannot be used is
            passed over. An image without one is shown without.
        force: Whether existing files are replaced.

    Returns:
        Images predicted and images left out.

    Raises:
        DataError: If an image cannot be read, or two would have files of one name.
        RunFolderError: If a file exists.
    """
    class_list = ClassList.from_plain(run.data_state["class_list"], "the run's class list")
    totals = SegmentationTotals(len(class_list.names), keep_samples=False)
    wanted = _wanted(run, inputs, column or run.cfg.data.image_column, annotations)
    done = bad = 0
    with progress() as bars:
        bar = bars.add_task("images", total=None)
        while chunk := list(islice(wanted, _BATCH)):
            for one in chunk:
                _check_target_free(target, one.name, force=force)
            read = [
                found
                for _, found in in_threads(
                    lambda one: _read(one, run.cfg.data.max_pixels, class_list), chunk
                )
            ]
            good = [
                (one, found)
                for one, found in zip(chunk, read, strict=True)
                if not isinstance(found, BadRow)
            ]
            if good:  # written before anything is refused: what is computed is not lost
                found = predicted_labels(run, [image for _, (image, _) in good])
                for (one, (image, labels)), prediction in zip(good, found, strict=True):
                    _write(target, one.name, class_list, image, prediction, labels)
                    if labels is not None:
                        ours, theirs = (
                            torch.from_numpy(np.ascontiguousarray(m))[None]
                            for m in (prediction, labels)
                        )
                        totals.update(
                            torch.zeros(()),
                            ours,
                            theirs,
                            torch.tensor([labels.shape]),
                            torch.zeros(1),
                        )
            faults = [fault for fault in read if isinstance(fault, BadRow)]
            if on_bad_rows == "error":
                raise_bad_rows(faults, advice=ADVICE)
            done, bad = done + len(good), bad + len(faults)
            bars.update(bar, completed=done)
    _tell_metrics(totals)
    return done, bad


def _tell_metrics(totals: SegmentationTotals) -> None:
    metrics = totals.result().metrics
    if metrics["miou"] is not None:
        shown = f"{int(totals.samples)} have annotations: mean IoU {metrics['miou']:.4f}, pixel accuracy {metrics['pixel_acc']:.4f}"
        Console(stderr=True).print(shown, highlight=False)


def _wanted(
    run: TrainedRun, inputs: Sequence[Path], column: str, annotations: Path | None
) -> Iterator[_Wanted]:
    """The images of the inputs; raises `DataError` where two would have files of one name."""
    data: Any = run.cfg.data
    reader = SegmentationReader(
        data.images,
        data.annotations,
        data.image_suffix,
        data.annotation_suffix,
        data.image_column,
        data.annotation_column,
    )
    seen: dict[Path, str] = {}
    for path in inputs:
        for image in images_of(path, column):
            annotation = None
            if image.row is not None:
                name = Path(f"{path.stem}.row{image.row}")
            else:
                file = Path(image.file)
                top = path if path.is_dir() else file.parent
                name = file.relative_to(top).with_suffix("")
                annotation = _annotation(reader, file, top, annotations)
            if name in seen:
                msg = f"{image.name} and {seen[name]} would both be written as {name}; predict them into two folders"
                raise DataError(msg)
            seen[name] = image.name
            yield _Wanted(image, name, annotation, annotations is not None)


def _annotation(
    reader: SegmentationReader, file: Path, top: Path, annotations: Path | None
) -> Path | None:
    folder = annotations or reader.annotations_beside(top)
    path = None if folder is None else reader.annotation_of(file, top, folder)
    return path if path is not None and path.is_file() else None


def _check_target_free(target: Path, name: Path, *, force: bool) -> None:
    for kind in ("labels", "colours", "overview"):
        path = target / f"{name}.{kind}.png"
        if path.exists() and not force:
            msg = f"{path} exists; give another -o, or --force to replace it"
            raise RunFolderError(msg)


def _read(
    wanted: _Wanted, max_pixels: int, class_list: ClassList
) -> tuple[Pixels, Pixels | None] | BadRow:
    """Image and annotation, or what is wrong. A mask belongs to the pixels as they are stored."""
    try:
        if wanted.annotation is None:
            return decode_image(wanted.image.source, max_pixels), None
        image = decode_image(wanted.image.source, max_pixels, upright=False)
    except BadImageError as error:
        return wanted.image.fault("", str(error))
    try:
        labels, fault = class_list.decode(decode_mask(wanted.annotation, max_pixels))
    except BadImageError as error:
        labels, fault = image[..., 0], str(error)
    if labels.shape != image.shape[:2]:
        fault = f"is {labels.shape[1]} x {labels.shape[0]} pixels, and its image is {image.shape[1]} x {image.shape[0]}"
    if not fault:
        return image, labels
    if wanted.asked_for:
        return BadRow("", str(wanted.annotation), None, None, fault)
    log.warning("%s %s; %s is shown without it", wanted.annotation, fault, wanted.image.name)
    return _read(replace(wanted, annotation=None), max_pixels, class_list)


def _write(
    target: Path,
    name: Path,
    class_list: ClassList,
    image: Pixels,
    prediction: Pixels,
    labels: Pixels | None,
) -> None:
    pictures = {
        "labels": Image.fromarray(class_list.encode(prediction)),
        "colours": Image.fromarray(coloured(prediction, class_list.colours)),
        "overview": triptych(image, prediction, labels, class_list.names, class_list.colours),
    }
    for kind, picture in pictures.items():
        content = encoded(picture)
        write_atomically(
            target / f"{name}.{kind}.png", lambda path, content=content: path.write_bytes(content)
        )  # type: ignore[misc]
