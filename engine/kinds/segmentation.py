"""Segmentation: a class for each pixel."""

import io
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from datamodules.reading.errors import DataError
from datamodules.segmentation import SegmentationDataModule
from engine.kinds.base import PredictionRequest, Results
from engine.kinds.contents import class_table, confusion, table_of
from engine.prediction.masks import predict_masks, predicted_labels
from engine.prediction.samples import predicted_masks
from engine.trained_run import TrainedRun
from lightning_modules.loggers.base import Content, Overlay, Picture
from lightning_modules.metrics.segmentation import SegmentationResult
from reports.mistakes import MAX_MISTAKES
from reports.record import RunRecord
from reports.triptychs import encoded, triptych
from run_folders.kinds import metric_text
from run_folders.run_folder import RunFolderError

log = logging.getLogger(__name__)

_EACH = 3  # pictures per group: the worst, the median and the best images
_LONGEST = 480  # pixels of a picture's longer side

Pixels = npt.NDArray[np.uint8]


class SegmentationResults(Results):
    """Records, publishes and predicts masks."""

    def record(
        self, result: SegmentationResult, datamodule: SegmentationDataModule
    ) -> dict[str, Any]:
        """Return the test part of metrics.json.

        Returns:
            A mapping with these entries:
            - `n`, the number of images;
            - the numbers of labelled and unlabelled pixels;
            - the metrics, and the metrics per class;
            - the names and the colours of the classes;
            - `absent`, the classes that occur nowhere; the means leave them out;
            - the confusion matrix, a row per label.
        """
        names = datamodule.class_names
        return {
            "n": result.count,
            "pixels": result.pixels,
            "unlabelled_pixels": result.unlabelled,
            **result.metrics,
            "classes": names,
            "colours": [list(colour) for colour in datamodule.class_list.colours],
            "absent": [
                name
                for name, metrics in zip(names, result.classes, strict=True)
                if metrics["iou"] is None
            ],
            "per_class": dict(zip(names, result.classes, strict=True)),
            "confusion_matrix": result.confusion,
        }

    def predictions(
        self, result: SegmentationResult, datamodule: SegmentationDataModule, split: str
    ) -> pd.DataFrame | None:
        """Return IoU and pixel accuracy of each image."""
        if result.images is None:
            return None
        index, iou, accuracy = (values.numpy() for values in result.images)
        column, values = datamodule.reference(split, index.tolist())
        return pd.DataFrame({"index": index, "iou": iou, "pixel_acc": accuracy, column: values})

    def pictures(
        self, result: SegmentationResult, datamodule: SegmentationDataModule, run: TrainedRun
    ) -> pd.DataFrame | None:
        """Return pictures of the worst, median and best images."""
        if result.images is None:
            return None
        index, iou, _ = (values.numpy() for values in result.images)
        rows = [
            row
            for group, number in _chosen(index.tolist(), iou.tolist())
            if (row := _pictures_of(run, datamodule, group, number)) is not None
        ]
        columns = ["index", "picture", "group", "image", "prediction", "annotation"]
        return pd.DataFrame(rows, columns=columns)

    def contents(self, run: RunRecord) -> Iterator[tuple[str, str, Content]]:
        """Yield the tables of classes and of images, pictures, and the confusion matrix."""
        yield "the table test/classes", "test/classes", class_table(run)
        if run.predictions is not None:
            images = run.predictions.sort_values(["iou", "index"]).head(MAX_MISTAKES)
            yield "the table test/images", "test/images", table_of(images)
            if run.pictures:
                yield "the pictures", "test/pictures", _captioned(run, run.predictions)
        yield "the confusion matrix", "test/confusion", confusion(run)

    def predict(self, run: TrainedRun, request: PredictionRequest) -> tuple[Path, int, int]:
        """Predict the masks of new images into a folder; see `predict_masks`."""
        target = request.output_or("")
        if target.exists() and not target.is_dir():
            msg = f"{target} is a file; masks are written into a folder: give another -o"
            raise RunFolderError(msg)
        done, bad = predict_masks(
            run,
            request.inputs,
            target,
            request.column,
            request.on_bad_rows,
            request.annotations,
            request.table_format,
            force=request.force,
        )
        return target, done, bad

    def predict_samples(self, run: TrainedRun, inputs: Any) -> list[Pixels]:  # noqa: ANN401 - images
        """Predict the masks of images: the number of the class of each pixel, [H, W] each."""
        return predicted_masks(run, inputs)


def _pictures_of(
    run: TrainedRun, datamodule: SegmentationDataModule, group: str, index: int
) -> dict[str, Any] | None:
    """Return a row with the picture of a test image and its layers; None if it cannot be read."""
    try:
        image, labels = datamodule.pairs("test", [index])[0]
    except DataError as error:  # a missing picture must not discard the metrics
        log.warning("no picture of index %d: %s", index, error)
        return None
    prediction = predicted_labels(run, [image])[0]
    names, colours = datamodule.class_names, datamodule.class_list.colours
    picture = triptych(image, prediction, labels, names, colours, longest=_LONGEST)
    layers = {"image": image, "prediction": prediction, "annotation": labels}
    files = {
        name: encoded(_shrunk(layer), "WEBP" if layer is image else "PNG")
        for name, layer in layers.items()
    }
    return {"index": index, "picture": encoded(picture, "WEBP"), "group": group, **files}


def _captioned(run: RunRecord, predictions: pd.DataFrame) -> list[Picture]:
    rows = {int(row["index"]): row for row in predictions.to_dict("records")}
    pictures = []
    for index, content in run.pictures.items():
        iou = metric_text(rows[index]["iou"], "miou")
        caption = f"{run.picture_groups[index]}: index {index}, IoU {iou}"
        pictures.append(Picture(content, caption, _overlay(run, index)))
    return pictures


def _overlay(run: RunRecord, index: int) -> Overlay | None:
    layers = run.picture_layers.get(index)
    if layers is None:
        return None
    image, prediction, annotation = (
        np.asarray(Image.open(io.BytesIO(content))) for content in layers
    )
    return Overlay(
        image, {"prediction": prediction, "annotation": annotation}, list(run.test["classes"])
    )


def _shrunk(pixels: Pixels) -> Image.Image:
    """Shrink an image or a mask to at most `_LONGEST` pixels; a mask keeps its values."""
    picture = Image.fromarray(pixels)
    factor = _LONGEST / max(picture.size)
    if factor >= 1:
        return picture
    kind = Image.Resampling.NEAREST if picture.mode == "L" else Image.Resampling.BICUBIC
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), kind)


def _chosen(index: Sequence[int], iou: Sequence[float]) -> list[tuple[str, int]]:
    """Return group and index of the images to show, each image once.

    Images without a labelled pixel have no IoU and are left out.
    """
    ranked = [
        i
        for _, i in sorted(
            (value, i) for value, i in zip(iou, index, strict=True) if not math.isnan(value)
        )
    ]
    each = min(_EACH, -(-len(ranked) // 3))
    start = max(0, (len(ranked) - each) // 2)
    groups = {
        "worst": ranked[:each],
        "median": ranked[start : start + each],
        "best": ranked[::-1][:each],
    }
    shown: dict[int, str] = {}
    for group in ("worst", "best", "median"):
        for i in groups[group]:
            shown.setdefault(i, group)
    return [(group, i) for group in groups for i in groups[group] if shown[i] == group]
