"""Prediction of the masks of new images with a run's best checkpoint."""

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

from datamodules.batches import IGNORE_INDEX, SegmentationBatch
from datamodules.images.decoding import BadImageError, decode_image, decode_mask
from datamodules.images.rows import EncodedImage
from datamodules.images.storage import in_threads
from datamodules.masks.class_list import ClassList
from datamodules.masks.rows import SegmentationReader
from datamodules.masks.transforms import resized_image
from datamodules.reading.errors import BadRow, DataError, raise_bad_rows
from engine.prediction.images import ADVICE, images_of
from engine.prediction.table_writer import progress
from engine.processes.terminal import console
from engine.trained_run import TrainedRun
from lightning_modules.metrics.segmentation import SegmentationTotals
from reports.triptychs import colorize, encoded, triptych
from run_folders.files import write_atomically
from run_folders.kinds import metric_of
from run_folders.run_folder import RunFolderError

log = logging.getLogger(__name__)

_BATCH = 4

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Item:
    """An image to predict.

    Attributes:
        image: The encoded image.
        name: The prefix of its output files' names.
        annotation: The file of its annotated mask; None without one.
        annotation_required: True if the user named the folder of masks, False if it was found
            beside the images.
    """

    image: EncodedImage
    name: Path
    annotation: Path | None
    annotation_required: bool


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
    """Predict the masks of images, each at the image's own size.

    Three files are written per image:

    - `<name>.labels.png`: the mask, with the same values as the dataset's own masks.
    - `<name>.colours.png`: the mask in the classes' colours.
    - `<name>.overview.png`: image, prediction and annotation side by side, with a legend.

    Args:
        run: A trained run of a segmenter.
        inputs: Images, folders of images, .txt with one path per line, or .parquet.
        target: The output folder.
        column: The column of the images in .parquet; None takes the run's.
        on_bad_rows: Stop at an image that cannot be read, or leave it out and count it.
        annotations: A folder of annotated masks with the images' names. None takes the folder
            that the dataset's layout has beside the images, if it exists; unusable masks in it
            are skipped with a warning. An image without a mask gets no annotation panel.
        force: Whether to replace existing files.

    Returns:
        The numbers of predicted and of left out images.

    Raises:
        DataError: If an image or a mask cannot be read, or two images would have the same output
            files.
        RunFolderError: If an output file exists.
    """
    class_list = ClassList.from_plain(run.data_state["class_list"], "the run's class list")
    totals = SegmentationTotals(len(class_list.names), keep_samples=False)
    items = _items(run, inputs, column or run.cfg.data.image_column, annotations)
    done = bad = 0
    with progress() as bars:
        bar = bars.add_task("images", total=None)
        while chunk := list(islice(items, _BATCH)):
            for item in chunk:
                _check_target_free(target, item.name, force=force)
            read = [
                result
                for _, result in in_threads(
                    lambda item: _read(item, run.cfg.data.max_pixels, class_list), chunk
                )
            ]
            good = [
                (item, result)
                for item, result in zip(chunk, read, strict=True)
                if not isinstance(result, BadRow)
            ]
            if good:  # written before an error is raised, so that no prediction is lost
                predictions = predicted_labels(run, [image for _, (image, _) in good])
                for (item, (image, labels)), prediction in zip(good, predictions, strict=True):
                    _write(target, item.name, class_list, image, prediction, labels)
                    if labels is not None:
                        predicted, annotated = (
                            torch.from_numpy(np.ascontiguousarray(mask))[None]
                            for mask in (prediction, labels)
                        )
                        totals.update(
                            torch.zeros(()),
                            predicted,
                            annotated,
                            torch.tensor([labels.shape]),
                            torch.zeros(1),
                        )
            faults = [fault for fault in read if isinstance(fault, BadRow)]
            if on_bad_rows == "error":
                raise_bad_rows(faults, advice=ADVICE)
            done, bad = done + len(good), bad + len(faults)
            bars.update(bar, completed=done)
    _print_metrics(totals)
    return done, bad


def _print_metrics(totals: SegmentationTotals) -> None:
    metrics = totals.result().metrics
    if metrics["miou"] is not None:
        shown = [metric_of(name) for name in ("miou", "pixel_acc")]
        line = f"images with annotations: {int(totals.samples)}; " + ", ".join(
            f"{metric.title} {metric.text(metrics[metric.name])}" for metric in shown
        )
        console(stderr=True).print(line, highlight=False)


def _items(
    run: TrainedRun, inputs: Sequence[Path], column: str, annotations: Path | None
) -> Iterator[_Item]:
    """Yield the images of the inputs.

    Raises:
        DataError: If two images would have the same output files.
    """
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
            if isinstance(image, BadRow):
                raise_bad_rows([image], advice="fix the file")
                continue
            annotation = None
            if image.row is not None:
                name = Path(f"{path.stem}.row{image.row}")
            else:
                file = Path(image.file)
                top = path if path.is_dir() else file.parent
                name = file.relative_to(top).with_suffix("")
                annotation = _annotation(reader, file, top, annotations)
            if name in seen:
                msg = (
                    f"{image.name} and {seen[name]} would both be written as {name}; "
                    "predict them into two folders"
                )
                raise DataError(msg)
            seen[name] = image.name
            yield _Item(image, name, annotation, annotations is not None)


def _annotation(
    reader: SegmentationReader, file: Path, top: Path, annotations: Path | None
) -> Path | None:
    folder = annotations or reader.annotations_for(top)
    path = None if folder is None else reader.annotation_of(file, top, folder)
    return path if path is not None and path.is_file() else None


def _check_target_free(target: Path, name: Path, *, force: bool) -> None:
    for kind in ("labels", "colours", "overview"):
        path = target / f"{name}.{kind}.png"
        if path.exists() and not force:
            msg = f"{path} exists; give another -o, or --force to replace it"
            raise RunFolderError(msg)


def _read(
    item: _Item, max_pixels: int, class_list: ClassList
) -> tuple[Pixels, Pixels | None] | BadRow:
    """Return an image and its annotation, or the fault of either.

    With an annotation the image is not rotated by its EXIF tag, as the mask was made for the
    pixels as they are stored.
    """
    try:
        if item.annotation is None:
            return decode_image(item.image.source, max_pixels), None
        image = decode_image(item.image.source, max_pixels, upright=False)
    except BadImageError as error:
        return item.image.fault("", str(error))
    try:
        labels, fault = class_list.decode(decode_mask(item.annotation, max_pixels))
    except BadImageError as error:
        labels, fault = image[..., 0], str(error)
    if labels.shape != image.shape[:2]:
        fault = (
            f"is {labels.shape[1]} x {labels.shape[0]} pixels, "
            f"but its image is {image.shape[1]} x {image.shape[0]}"
        )
    if not fault:
        return image, labels
    if item.annotation_required:
        return BadRow("", str(item.annotation), None, None, fault)
    log.warning("%s %s; %s is shown without it", item.annotation, fault, item.image.name)
    return _read(replace(item, annotation=None), max_pixels, class_list)


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
        "colours": Image.fromarray(colorize(prediction, class_list.colours)),
        "overview": triptych(image, prediction, labels, class_list.names, class_list.colours),
    }
    for kind, picture in pictures.items():
        content = encoded(picture)
        write_atomically(
            target / f"{name}.{kind}.png",
            lambda path, content=content: path.write_bytes(content),  # type: ignore[misc]
        )


def predicted_labels(run: TrainedRun, images: Sequence[Pixels]) -> list[Pixels]:
    """Predict the class of each pixel, at each image's own size.

    Args:
        run: A trained run of a segmenter.
        images: Images, [H, W, 3] each.

    Returns:
        Masks, [H, W] each.
    """
    side = int(run.data_state["size"][0])
    sizes = torch.tensor([image.shape[:2] for image in images])
    height, width = sizes.amax(dim=0).tolist()
    pixels = torch.from_numpy(
        np.stack([resized_image(image, side).transpose(2, 0, 1) for image in images])
    )
    unknown = torch.full((len(images), height, width), IGNORE_INDEX, dtype=torch.uint8)
    batch = SegmentationBatch(
        pixel_values=pixels, labels=unknown, sizes=sizes, index=torch.arange(len(images))
    )
    masks = run.predict(batch).numpy()
    return [mask[:h, :w] for mask, (h, w) in zip(masks, sizes.tolist(), strict=True)]
