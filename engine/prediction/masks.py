"""Prediction of the masks of new images with a run's best checkpoint."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from datamodules.batches import IGNORE_INDEX, SegmentationBatch
from datamodules.images.decoding import BadImageError
from datamodules.images.storing import report_conversions
from datamodules.images.threads import in_threads
from datamodules.masks.class_list import ClassList
from datamodules.masks.decoding import BadMaskError, PairDecoding
from datamodules.masks.transforms import resized_image
from datamodules.reading.errors import BadRow, check_count, raise_bad_rows
from datamodules.reading.formats import TableFormat
from datamodules.reading.progress import progress
from engine.prediction.images import ADVICE
from engine.prediction.mask_inputs import MaskInput, mask_inputs
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


def predict_masks(
    run: TrainedRun,
    inputs: Sequence[Path],
    target: Path,
    column: str | None,
    on_bad_rows: Literal["error", "skip"],
    annotations: Path | None = None,
    table_format: TableFormat = TableFormat(),
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
        inputs: Images, folders of images, .txt with one path per line, or tables.
        target: The output folder.
        column: The column of the images in a table; None takes the run's.
        on_bad_rows: Stop at an image that cannot be read, or leave it out and count it.
        annotations: A folder of annotated masks with the images' names. None takes the folder
            that the dataset's layout has beside the images, if it exists; unusable masks in it
            are skipped with a warning. An image without a mask gets no annotation panel.
        table_format: Encoding, delimiter and quoting of a text file.
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
    data: Any = run.cfg.data
    decoding = PairDecoding(
        data.max_pixels, bool(data.get("convert")), data.get("mask_orientation")
    )
    entries = mask_inputs(run, inputs, column or data.image_column, annotations, table_format)
    done = bad = 0
    conversions = Counter[str]()

    def read(entry: MaskInput | BadRow) -> _Read | BadRow:
        return entry if isinstance(entry, BadRow) else _read(entry, decoding, class_list)

    with progress("predicting", unit="images") as advance:
        while chunk := list(islice(entries, _BATCH)):
            for item in chunk:
                if isinstance(item, MaskInput):
                    _check_target_free(target, item.name, force=force)
            results = list(in_threads(read, chunk))
            good = [
                (item, result)
                for item, result in results
                if isinstance(item, MaskInput) and not isinstance(result, BadRow)
            ]
            faults = [fault for _, fault in results if isinstance(fault, BadRow)]
            check_count("the input", len(chunk), len(good), len(faults))
            if good:  # written before an error is raised, so that no prediction is lost
                predictions = predicted_labels(run, [found.image for _, found in good])
                for (item, found), prediction in zip(good, predictions, strict=True):
                    image, labels = found.image, found.labels
                    conversions.update(found.conversions)
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
            if on_bad_rows == "error":
                raise_bad_rows(faults, advice=ADVICE)
            done, bad = done + len(good), bad + len(faults)
            advance(len(chunk))
    report_conversions("predict", conversions)
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


def _check_target_free(target: Path, name: Path, *, force: bool) -> None:
    for kind in ("labels", "colours", "overview"):
        path = target / f"{name}.{kind}.png"
        if path.exists() and not force:
            msg = f"{path} exists; give another -o, or --force to replace it"
            raise RunFolderError(msg)


@dataclass(frozen=True)
class _Read:
    """What was read of an item.

    Attributes:
        image: [H, W, 3], as viewers show it.
        labels: Its annotation [H, W]; None without one.
        conversions: See `datamodules.images.decoding.Decoded`.
    """

    image: Pixels
    labels: Pixels | None
    conversions: tuple[str, ...] = ()


def _read(item: MaskInput, decoding: PairDecoding, class_list: ClassList) -> _Read | BadRow:
    """Return an image and its annotation, both as viewers show them, or the fault of either."""
    try:
        decoded = decoding.decode_image(item.image.source)
    except BadImageError as error:
        return item.image.fault("", str(error))
    if item.annotation is None:
        return _Read(decoded.pixels, None, decoded.conversions)
    try:
        labels, fault = class_list.decode(decoding.mask_of(decoded, item.annotation))
    except BadMaskError as error:
        labels, fault = None, str(error)
    if not fault:
        return _Read(decoded.pixels, labels, decoded.conversions)
    if item.annotation_required:
        return BadRow("", str(item.annotation), None, None, fault)
    log.warning("%s %s; %s is shown without it", item.annotation, fault, item.image.name)
    return _Read(decoded.pixels, None, decoded.conversions)


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
