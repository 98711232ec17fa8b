"""The metrics of a stage, each described once. Standard library only.

A metric's key is `{train,val,test}/NAME` in logs and in history.csv, and NAME under its stage in
metrics.json.
"""

from dataclasses import dataclass
from typing import Literal

Place = Literal["console", "curves", "comparison", "sweep", "dashboard"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Its key.
        title: Its name on a page.
        better: Whether a higher (`max`) or a lower (`min`) value is better.
        kind: The kind of task that has it; empty for every kind.
        shown: Where it is shown beside the report's own tables: `console`, the table that ends a
            run; `curves`, the report's plots over epochs; `comparison`, the plots of a comparison;
            `sweep`, tables of jobs; `dashboard`, W&B's workspace.
        format: Of a value, as `format` takes it.
    """

    name: str
    title: str
    kind: Literal["classification", "segmentation", ""]
    better: Literal["min", "max"] = "max"
    shown: tuple[Place, ...] = ()
    format: str = ".4f"

    def text(self, value: float | None) -> str:
        """A value as it is shown; `-` for none."""
        return "-" if value is None else format(value, self.format)


# In the order in which they are shown.
METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "acc",
            "accuracy",
            "classification",
            shown=("console", "curves", "comparison", "sweep", "dashboard"),
        ),
        Metric("f1_macro", "macro F1", "classification", shown=("console", "sweep", "dashboard")),
        Metric("f1_weighted", "weighted F1", "classification"),
        Metric("precision_macro", "macro precision", "classification"),
        Metric("recall_macro", "macro recall", "classification"),
        Metric("roc_auc", "ROC AUC", "classification", shown=("console",)),
        Metric("average_precision", "average precision", "classification"),
        Metric("loss", "loss", "", "min", shown=("console", "curves", "comparison", "dashboard")),
        Metric("ece", "calibration error", "classification", "min", shown=("console",)),
        Metric(
            "miou",
            "mean IoU",
            "segmentation",
            shown=("console", "curves", "comparison", "sweep", "dashboard"),
        ),
        Metric(
            "pixel_acc", "pixel accuracy", "segmentation", shown=("console", "curves", "dashboard")
        ),
        Metric("class_acc", "mean class accuracy", "segmentation", shown=("console",)),
        Metric("fw_iou", "frequency-weighted IoU", "segmentation", shown=("console",)),
    )
}


def shown_in(place: Place, kind: str | None = None) -> list[Metric]:
    """The metrics that a place shows, in order; those that a kind of task has where it is given."""
    return [
        m for m in METRICS.values() if place in m.shown and (kind is None or m.kind in ("", kind))
    ]
