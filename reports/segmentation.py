"""The parts of a run's page that only segmentation has."""

from typing import Any

import numpy as np

from reports.pictures import source
from reports.record import RunRecord
from reports.statistics import mean_interval
from run_folders.metrics import METRICS

_MAX_PAIRS = 30
_GROUPS = ("worst", "median", "best")


def is_segmentation(run: RunRecord) -> bool:
    """Return whether a run's test metrics are those of segmentation."""
    return "miou" in run.test


def segmentation_headline(run: RunRecord) -> list[dict[str, Any]]:
    """Return the cards at the top of the page: title, value and confidence interval."""
    test, table = run.test, run.predictions
    mean = None if table is None else mean_interval(table["iou"])
    named = ("miou", "pixel_acc", "class_acc")
    shown = [
        {"title": METRICS[name].title, "value": test[name], "interval": None} for name in named
    ]
    if table is not None and table["iou"].notna().any():
        shown.append(
            {
                "title": "IoU of an image, mean",
                "value": float(table["iou"].mean()),
                "interval": mean,
            }
        )
    return shown


def class_rows(run: RunRecord) -> list[dict[str, Any]]:
    """Return the rows of the per-class table, the class with the most labelled pixels first.

    A row has the class's name, colour, metrics and share of the labelled pixels. Classes that occur
    neither as label nor as prediction have no row.
    """
    test, rows = run.test, []
    for (name, metrics), colour in zip(test["per_class"].items(), test["colours"], strict=True):
        if metrics["iou"] is not None:
            shown = "#" + "".join(f"{part:02x}" for part in colour)
            rows.append(
                {
                    "name": name,
                    "colour": shown,
                    "share": metrics["pixels"] / test["pixels"],
                    **metrics,
                }
            )
    return sorted(rows, key=lambda row: -row["pixels"])


def confusion_pairs(run: RunRecord) -> list[dict[str, Any]]:
    """Return the most frequent confusions of two classes, the one with the most pixels first.

    A row has label, prediction, pixels, and their share of the label's pixels.
    """
    counts = np.asarray(run.test["confusion_matrix"])
    totals = counts.sum(axis=1)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    names, rows = run.test["classes"], []
    for cell in np.argsort(-wrong, axis=None, kind="stable")[:_MAX_PAIRS]:
        label, prediction = divmod(int(cell), len(names))
        pixels = int(wrong[label, prediction])
        if pixels:
            share = pixels / int(totals[label])
            rows.append(
                {
                    "label": names[label],
                    "prediction": names[prediction],
                    "pixels": pixels,
                    "share": share,
                }
            )
    return rows


def segmentation_pictures(run: RunRecord) -> list[dict[str, Any]]:
    """Return the pictures of the test images with the worst, median and best IoU.

    Each group is a dict with group and pictures; each picture is a dict with name, index, iou,
    pixel_acc and source.
    """
    if run.predictions is None:
        return []
    rows = {int(row["index"]): row for row in run.predictions.to_dict("records")}
    reference, shown = run.predictions.columns[-1], []
    for group in _GROUPS:
        chosen = [index for index in run.pictures if run.picture_groups.get(index) == group]
        pictures = [
            {
                "index": index,
                "name": str(rows[index][reference]),
                "iou": rows[index]["iou"],
                "pixel_acc": rows[index]["pixel_acc"],
                "source": source(run.pictures[index]),
            }
            for index in chosen
        ]
        if pictures:
            shown.append({"group": group, "pictures": pictures})
    return shown
