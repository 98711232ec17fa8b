"""The report's parts for classification."""

from typing import Any, ClassVar

import pandas as pd

from reports import plots
from reports.kinds.base import MAX_DRAWN_CLASSES, Card, KindPage, card
from reports.mistakes import MAX_MISTAKES, misclassified_pictures, misclassified_samples, mistakes
from reports.pictures import class_pictures
from reports.record import RunRecord
from reports.statistics import macro_f1_interval, roc_auc_interval, wilson_interval
from run_folders.kinds import metric_of


class ClassificationPage(KindPage):
    """Per-class metrics, confusion matrix, reliability, misclassified samples."""

    template: ClassVar[str] = "kind_classification.html.j2"
    comparison: ClassVar[str] = "Classifiers are compared with McNemar's exact test."
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
