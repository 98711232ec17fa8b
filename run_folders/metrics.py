"""The metrics of a stage, each described once. Standard library only.

A metric's key is `{train,val,test}/NAME` in logs and in history.csv, and NAME under its stage in
metrics.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Place = Literal["log", "console", "curves", "comparison", "sweep", "dashboard"]
_STAGES = ("train", "val")
_FORMAT = ".4f"


@dataclass(frozen=True)
class Metric:
    """The description of one metric.

    Attributes:
        name: Its key.
        title: Its name in reports.
        better: Whether a higher (`max`) or a lower (`min`) value is better.
        kind: The kind of task that has it; empty if every kind has it.
        shown: Where it is shown, besides the tables of the report. `log`: the line after each
            epoch. `console`: the table at the end of a run. `curves`: the report's plots over
            epochs. `comparison`: the plots of a comparison. `sweep`: the tables of jobs.
            `dashboard`: the W&B workspace.
        format: The format specification of its values.
    """

    name: str
    title: str
    kind: Literal["classification", "segmentation", ""]
    better: Literal["min", "max"] = "max"
    shown: tuple[Place, ...] = ()
    format: str = _FORMAT

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
            shown=("log", "console", "curves", "comparison", "sweep", "dashboard"),
        ),
        Metric("f1_macro", "macro F1", "classification", shown=("console", "sweep", "dashboard")),
        Metric("f1_weighted", "weighted F1", "classification"),
        Metric("precision_macro", "macro precision", "classification"),
        Metric("recall_macro", "macro recall", "classification"),
        Metric("roc_auc", "ROC AUC", "classification", shown=("console",)),
        Metric("average_precision", "average precision", "classification"),
        Metric(
            "loss",
            "loss",
            "",
            "min",
            shown=("log", "console", "curves", "comparison", "dashboard"),
        ),
        Metric("ece", "calibration error", "classification", "min", shown=("console",)),
        Metric(
            "miou",
            "mean IoU",
            "segmentation",
            shown=("log", "console", "curves", "comparison", "sweep", "dashboard"),
        ),
        Metric(
            "pixel_acc", "pixel accuracy", "segmentation", shown=("console", "curves", "dashboard")
        ),
        Metric("class_acc", "mean class accuracy", "segmentation", shown=("console",)),
        Metric("fw_iou", "frequency-weighted IoU", "segmentation", shown=("console",)),
    )
}


def metric_text(value: float | None, key: str = "") -> str:
    """Format a value; `-` for None.

    Args:
        value: The value.
        key: The metric's key, with or without its stage. An unknown metric has four decimals.
    """
    known = METRICS.get(key.rpartition("/")[2])
    return known.text(value) if known else Metric(key, key, "").text(value)


def log_line(values: Mapping[str, object]) -> str:
    """Return the metrics of an epoch in one line, such as `train/acc 0.9000 val/acc 0.8000`.

    Args:
        values: Key, such as `val/acc`, -> value. Other values than floats are left out.
    """
    shown = [(f"{stage}/{metric.name}", metric) for stage in _STAGES for metric in shown_in("log")]
    return " ".join(
        f"{key} {metric.text(value)}"
        for key, metric in shown
        if isinstance(value := values.get(key), float)
    )


def shown_in(place: Place, kind: str | None = None) -> list[Metric]:
    """Return the metrics that a place shows, in display order.

    With a `kind`, only the metrics that this kind of task has are returned.
    """
    return [
        m for m in METRICS.values() if place in m.shown and (kind is None or m.kind in ("", kind))
    ]
