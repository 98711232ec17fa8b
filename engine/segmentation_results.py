"""Write the results of a segmentation stage to the run folder."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image

from datamodules.batches import IGNORE_INDEX, SegmentationBatch
from datamodules.masks.transforms import resized_image
from datamodules.reading.errors import DataError
from datamodules.segmentation import SegmentationDataModule
from engine.trained_run import TrainedRun
from lightning_modules.metrics.segmentation import SegmentationResult
from reports.triptychs import encoded, triptych
from run_folders.files import write_atomically
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)

_EACH = 3  # pictures per group: the worst, the median and the best images
_LONGEST = 480  # pixels of a picture's longer side

Pixels = npt.NDArray[np.uint8]


def segmentation_record(
    result: SegmentationResult, datamodule: SegmentationDataModule
) -> dict[str, Any]:
    """Return one stage's part of metrics.json.

    Args:
        result: The results of the stage.
        datamodule: The datamodule of the run.

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


def write_segmentation(
    folder: RunFolder,
    result: SegmentationResult,
    datamodule: SegmentationDataModule,
    run: TrainedRun,
) -> None:
    """Write predictions/test.parquet, and pictures of the worst, median and best images.

    The predictions have IoU and pixel accuracy of each image.
    """
    if result.images is None:
        return
    index, iou, accuracy = (values.numpy() for values in result.images)
    column, values = datamodule.reference("test", index.tolist())
    table = pd.DataFrame({"index": index, "iou": iou, "pixel_acc": accuracy, column: values})
    write_atomically(folder.predictions, lambda path: table.to_parquet(path, index=False))
    chosen = _chosen(index.tolist(), iou.tolist())
    rows = []
    for group, number in chosen:
        try:
            image, labels = datamodule.pairs("test", [number])[0]
        except DataError as error:  # a missing picture must not discard the metrics
            log.warning("no picture of index %d: %s", number, error)
            continue
        prediction = predicted_labels(run, [image])[0]
        picture = triptych(
            image,
            prediction,
            labels,
            datamodule.class_names,
            datamodule.class_list.colours,
            longest=_LONGEST,
        )
        layers = {"image": image, "prediction": prediction, "annotation": labels}
        files = {
            name: encoded(_shrunk(layer), "WEBP" if layer is image else "PNG")
            for name, layer in layers.items()
        }
        rows.append({"index": number, "picture": encoded(picture, "WEBP"), "group": group, **files})
    shown = pd.DataFrame(
        rows, columns=["index", "picture", "group", "image", "prediction", "annotation"]
    )
    write_atomically(folder.test_images, lambda path: shown.to_parquet(path, index=False))


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
