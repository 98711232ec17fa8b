"""The report's parts for segmentation."""

from typing import Any, ClassVar, TypedDict

import numpy as np
import pandas as pd

from reports import plots
from reports.kinds.base import MAX_DRAWN_CLASSES, Card, KindPage, card, confusion_fault
from reports.pictures import source
from reports.record import RunRecord
from reports.statistics import mean_interval

_MAX_PAIRS = 30
_HIGHEST = 255
_GROUPS = ("worst", "median", "best")


class ClassMetrics(TypedDict):
    """The test metrics of a class, and its numbers of pixels."""

    iou: float | None
    acc: float | None
    pixels: int
    predicted_pixels: int


class SegmentationTest(TypedDict):
    """The test part of metrics.json."""

    n: int
    pixels: int
    unlabelled_pixels: int
    miou: float | None
    pixel_acc: float | None
    class_acc: float | None
    fw_iou: float | None
    loss: float | None
    classes: list[str]
    colours: list[tuple[int, int, int]]
    absent: list[str]
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]]


class SegmentationPage(KindPage):
    """Pictures, per-class metrics and confusions of segmentation."""

    sample_noun: ClassVar[str] = "images"
    template: ClassVar[str] = "kind_segmentation.html.j2"
    comparison: ClassVar[str] = (
        "Segmentation runs are compared with the sign test on the IoU of each image."
    )
    test_type: ClassVar[Any] = SegmentationTest
    tables: ClassVar[tuple[str, ...]] = ("test/classes", "test/images")
    has_confusion: ClassVar[bool] = True

    def headline(self, run: RunRecord) -> list[Card]:
        """Return mean IoU, pixel accuracy, mean class accuracy and the mean IoU of an image."""
        cards = [card(run, key) for key in ("miou", "pixel_acc", "class_acc")]
        table = run.predictions
        if table is not None and table["iou"].notna().any():
            mean, interval = float(table["iou"].mean()), mean_interval(table["iou"])
            cards.append(Card("miou", "IoU of an image, mean", mean, interval))
        return cards

    def variables(self, run: RunRecord) -> dict[str, Any]:
        """Return the variables of the template."""
        test = run.test
        small = test.get("n") and len(test["classes"]) <= MAX_DRAWN_CLASSES
        return {
            "rows": class_rows(run),
            "pairs": confusion_pairs(run),
            "pictures": segmentation_pictures(run),
            "confusion": small
            and plots.confusion_matrix(test["confusion_matrix"], test["classes"]),
        }

    def test_fault(self, test: dict[str, Any]) -> str:
        """Return why the confusion matrix or the colours do not fit; see the base class."""
        if len(test["colours"]) != len(test["classes"]):
            return "test.colours has not one colour for each class"
        if any(part > _HIGHEST for colour in test["colours"] for part in colour):
            return f"test.colours has values above {_HIGHEST}"
        fault = confusion_fault(test, "pixels")
        pixels = [row["pixels"] for row in test["per_class"].values()]
        if not fault and pixels != [sum(row) for row in test["confusion_matrix"]]:
            return "the rows of test.confusion_matrix have other sums than test.per_class"
        return fault

    def prediction_types(self, run: RunRecord) -> dict[str, type]:  # noqa: ARG002 - base class
        """Return index, IoU and pixel accuracy; see the base class."""
        return {"index": int, "iou": float, "pixel_acc": float}

    def scores(self, predictions: pd.DataFrame) -> "pd.Series[Any]":
        """Return the IoU of each image."""
        return predictions["iou"]


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
                    "share": metrics["pixels"] / max(1, test["pixels"]),
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
