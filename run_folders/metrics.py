"""The metrics of a stage, each described once. Standard library only.

A metric's key is `{train,val,test}/NAME` in logs and in history.csv, and NAME under its stage in
metrics.json. `run_folders.kinds` states which kind of task has which metrics.
"""

import math
from dataclasses import dataclass
from typing import Literal

Place = Literal["log", "console", "curves", "comparison", "sweep", "dashboard"]
_EVERYWHERE: tuple[Place, ...] = (
    "log",
    "console",
    "curves",
    "comparison",
    "sweep",
    "dashboard",
)


@dataclass(frozen=True)
class Metric:
    """The description of one metric.

    Attributes:
        name: Its key. Kinds of task that share a key share the description.
        title: Its name in reports.
        better: Whether a higher (`max`) or a lower (`min`) value is better.
        shown: Where it is shown, besides the tables of the report. `log`: the line after each
            epoch. `console`: the table at the end of a run. `curves`: the report's plots over
            epochs. `comparison`: the plots of a comparison. `sweep`: the tables of jobs.
            `dashboard`: the W&B workspace.
        format: The format specification of its values.
        undefined: When it has no value, as shown in place of one.
    """

    name: str
    title: str
    better: Literal["min", "max"] = "max"
    shown: tuple[Place, ...] = ()
    format: str = ".4f"
    undefined: str = ""

    def text(self, value: float | None) -> str:
        """Format a value; None and NaN are `not defined`, with the reason."""
        if value is None or math.isnan(value):
            return f"not defined ({self.undefined})" if self.undefined else "not defined"
        return format(value, self.format)

    def difference(self, value: float) -> str:
        """Format a difference of two values, with its sign."""
        return format(value, f"+{self.format}")


LOSS = Metric("loss", "loss", "min", ("log", "console", "curves", "comparison", "dashboard"))
_ONE_CLASS, _NO_PIXEL = "labels of one class only", "no labelled pixel"
_NO_LABEL = "no sample has a label"
_F1_MACRO = Metric("f1_macro", "macro F1", shown=("console", "sweep", "dashboard"))

# Each in display order.
CLASSIFICATION = (
    Metric("acc", "accuracy", shown=_EVERYWHERE),
    _F1_MACRO,
    Metric("f1_weighted", "weighted F1"),
    Metric("precision_macro", "macro precision"),
    Metric("recall_macro", "macro recall"),
    Metric("roc_auc", "ROC AUC", shown=("console",), undefined=_ONE_CLASS),
    Metric("average_precision", "average precision", undefined=_ONE_CLASS),
    LOSS,
    Metric("ece", "calibration error", "min", ("console",)),
)
MULTILABEL = (
    Metric("map", "mean average precision", shown=_EVERYWHERE, undefined=_NO_LABEL),
    Metric("f1_micro", "micro F1", shown=("console", "sweep", "dashboard")),
    _F1_MACRO,
    Metric("exact_match", "exact match", shown=("console", "sweep", "dashboard")),
    Metric("hamming_loss", "Hamming loss", "min", ("console",)),
    LOSS,
)
SEGMENTATION = (
    Metric("miou", "mean IoU", shown=_EVERYWHERE, undefined=_NO_PIXEL),
    Metric(
        "pixel_acc", "pixel accuracy", shown=("console", "curves", "dashboard"), undefined=_NO_PIXEL
    ),
    Metric("class_acc", "mean class accuracy", shown=("console",), undefined=_NO_PIXEL),
    Metric("fw_iou", "frequency-weighted IoU", shown=("console",), undefined=_NO_PIXEL),
    LOSS,
)
