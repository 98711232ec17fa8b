"""The metrics of a stage, each described once. Standard library only.

A metric's key is `{train,val,test}/NAME` in logs and in history.csv, and NAME under its stage in
metrics.json.
"""

from dataclasses import dataclass
from typing import Literal

Place = Literal["console", "curves", "comparison", "sweep", "dashboard"]


@dataclass(frozen=True)
class Metric:
    """The description of one metric.

    Attributes:
        name: Its key.
        title: Its name in reports.
        better: Whether a higher (`max`) or a lower (`min`) value is better.
        kind: The kind of task that has it; empty if every kind has it.
        shown: Where it is shown, besides the tables of the report. `console`: the table at the end
            of a run. `curves`: the report's plots over epochs. `comparison`: the plots of a
            comparison. `sweep`: the tables of jobs. `dashboard`: the W&B workspace.
        format: The format specification of its values.
    """

    name: str
    title: str
    kind: Literal["classification", "segmentation", ""]
    better: Literal["min", "max"] = "max"
    shown: tuple[Place, ...] = ()
    format: str = ".4f"

    def text(self, value: float | None) -> str:
        """Format a value; `-` for None."""
        return "-" if value is None else format(value, self.format)


# In display order.
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
    """Return the metrics that a place shows, in display order.

    With a `kind`, only the metrics that this kind of task has are returned.
    """
    return [
        m for m in METRICS.values() if place in m.shown and (kind is None or m.kind in ("", kind))
    ]
