"""The report's parts for classification."""

from typing import Any, ClassVar, TypedDict

import pandas as pd

from reports import plots
from reports.kinds.base import MAX_DRAWN_CLASSES, Card, KindPage, card, confusion_fault
from reports.mistakes import MAX_MISTAKES, misclassified_pictures, misclassified_samples, mistakes
from reports.pictures import class_pictures
from reports.record import RunRecord
from reports.statistics import macro_f1_interval, roc_auc_interval, wilson_interval
from run_folders.kinds import metric_of


class ClassMetrics(TypedDict):
    """The test metrics of a class."""

    precision: float
    recall: float
    f1: float
    support: int


class CalibrationBin(TypedDict):
    """The samples whose confidence is between two bounds."""

    lower: float
    upper: float
    count: int
    confidence: float
    acc: float


class ClassificationTest(TypedDict):
    """The test part of metrics.json."""

    n: int
    acc: float | None
    precision_macro: float | None
    precision_weighted: float | None
    recall_macro: float | None
    recall_weighted: float | None
    f1_macro: float | None
    f1_weighted: float | None
    loss: float | None
    classes: list[str]
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]]
    calibration: list[CalibrationBin]


class ClassificationPage(KindPage):
    """Per-class metrics, confusion matrix, reliability, misclassified samples."""

    template: ClassVar[str] = "kind_classification.html.j2"
    comparison: ClassVar[str] = "Classifiers are compared with McNemar's exact test."
    test_type: ClassVar[Any] = ClassificationTest
    tables: ClassVar[tuple[str, ...]] = ("test/classes", "test/mistakes")
    has_confusion: ClassVar[bool] = True

    def headline(self, run: RunRecord) -> list[Card]:
        """Return accuracy, macro F1, for two classes ROC AUC, and calibration error."""
        test = run.test
        if not test.get("n"):
            return []
        hits = sum(row[k] for k, row in enumerate(test["confusion_matrix"]))
        cards = [
            card(run, "acc", wilson_interval(hits, test["n"])),
            card(run, "f1_macro", macro_f1_interval(test["confusion_matrix"])),
        ]
        if "roc_auc" in test and run.predictions is not None:
            positive = test["classes"][1]
            interval = roc_auc_interval(
                run.predictions[f"probability_{positive}"].tolist(),
                (run.predictions["label"] == positive).tolist(),
            )
            title = f"{metric_of('roc_auc').title} of {positive}"
            cards.append(Card("roc_auc", title, test["roc_auc"], interval))
        return [*cards, card(run, "ece")]

    def variables(self, run: RunRecord) -> dict[str, Any]:
        """Return the variables of the template."""
        test = run.test
        small = test.get("n") and len(test["classes"]) <= MAX_DRAWN_CLASSES
        return {
            "averages": _averages(test),
            "confusion": small
            and plots.confusion_matrix(test["confusion_matrix"], test["classes"]),
            "reliability": test.get("calibration") and plots.reliability(test["calibration"]),
            "confusions": mistakes(run),
            "class_pictures": class_pictures(run),
            "misclassified_pictures": misclassified_pictures(run),
            "wrong_count": len(misclassified_samples(run)),
            "max_mistakes": MAX_MISTAKES,
        }

    def test_fault(self, test: dict[str, Any]) -> str:
        """Return why the confusion matrix does not fit; see the base class."""
        if test.get("roc_auc") is not None and len(test["classes"]) != 2:  # noqa: PLR2004
            return "test.roc_auc is given, and there are not two classes"
        for row in test["calibration"]:
            shares = (row["lower"], row["upper"], row["confidence"], row["acc"])
            if not (row["count"] and min(shares) >= 0 and max(shares) <= 1):
                return "test.calibration has an empty bin, or values outside 0 to 1"
        return confusion_fault(test, "n")

    def prediction_types(self, run: RunRecord) -> dict[str, type]:
        """Return index, label, prediction and probabilities; see the base class."""
        probabilities = {f"probability_{name}": float for name in run.test["classes"]}
        return {"index": int, "label": str, "prediction": str, **probabilities}

    def sample_columns(self, predictions: pd.DataFrame) -> list[str]:
        """Return index, reference and label."""
        return [*super().sample_columns(predictions), "label"]

    def scores(self, predictions: pd.DataFrame) -> "pd.Series[Any]":
        """Return whether each sample is predicted correctly."""
        return predictions["label"] == predictions["prediction"]


def _averages(test: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of averages below the per-class table.

    Each sample has one label, so micro precision, recall and F1 all equal the accuracy.
    """
    if not test.get("n"):
        return []
    rows = [{"name": "micro average", **dict.fromkeys(("precision", "recall", "f1"), test["acc"])}]
    rows += [
        {
            "name": f"{kind} average",
            **{name: test[f"{name}_{kind}"] for name in ("precision", "recall", "f1")},
        }
        for kind in ("macro", "weighted")
    ]
    return rows
