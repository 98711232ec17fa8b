"""Classification metrics, under the names that reports read. `N` samples, `K` classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

Array = NDArray[Any]

CALIBRATION_BINS = 15


def stage_metrics(labels: Array, probabilities: Array) -> dict[str, Any]:
    """Compute the metrics of one stage from all of its samples.

    Args:
        labels: [N] class indices.
        probabilities: [N, K], rows sum to 1.

    Returns:
        n, acc, precision, recall and f1 (macro and weighted; 0 where undefined), loss (mean
        negative log-likelihood, nats) and ece (expected calibration error of 15 bins). With two
        classes also roc_auc and average_precision of class 1, which are None if a class is absent.
    """
    classes = np.arange(probabilities.shape[1])
    predictions = predicted(probabilities)
    # A class without labels and predictions would count as 0 in the macro averages.
    present = np.union1d(labels, predictions)
    metrics: dict[str, Any] = {"n": len(labels), "acc": float(np.mean(predictions == labels))}
    for average in ("macro", "weighted"):
        values = precision_recall_fscore_support(
            labels, predictions, labels=present, average=average, zero_division=0
        )
        names = ("precision", "recall", "f1")
        metrics |= {
            f"{name}_{average}": float(value) for name, value in zip(names, values[:3], strict=True)
        }
    metrics["loss"] = float(log_loss(labels, probabilities, labels=classes))
    bins = calibration(labels, probabilities)
    metrics["ece"] = sum(row["count"] * abs(row["acc"] - row["confidence"]) for row in bins) / len(
        labels
    )
    if len(classes) == 2:  # noqa: PLR2004
        both = len(np.unique(labels)) == len(classes)
        metrics["roc_auc"] = float(roc_auc_score(labels, probabilities[:, 1])) if both else None
        metrics["average_precision"] = (
            float(average_precision_score(labels, probabilities[:, 1])) if both else None
        )
    return metrics


def classification_record(
    labels: Array, probabilities: Array, classes: Sequence[str]
) -> dict[str, Any]:
    """Return the entry of the test stage in metrics.json.

    Args:
        labels: [N] class indices.
        probabilities: [N, K], rows sum to 1.
        classes: Names of class 0, 1, ...

    Returns:
        The result of `stage_metrics`, the metrics per class, the confusion matrix (rows are labels,
        columns are predictions) and the calibration bins.
    """
    numbers, predictions = np.arange(len(classes)), predicted(probabilities)
    table = precision_recall_fscore_support(labels, predictions, labels=numbers, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    per_class = {
        name: {key: values[k].item() for key, values in zip(names, table, strict=True)}
        for k, name in enumerate(classes)
    }
    return {
        **stage_metrics(labels, probabilities),
        "classes": list(classes),
        "per_class": per_class,
        "confusion_matrix": confusion_matrix(labels, predictions, labels=numbers).tolist(),
        "calibration": calibration(labels, probabilities),
    }


def predicted(probabilities: Array) -> Array:
    """Return the most probable class [N]; with two classes, a tie results in class 1."""
    if probabilities.shape[1] == 2:  # noqa: PLR2004
        return (probabilities[:, 1] >= probabilities[:, 0]).astype(np.int64)
    return np.asarray(probabilities.argmax(axis=1))


def calibration(labels: Array, probabilities: Array) -> list[dict[str, float]]:
    """Return the non-empty confidence bins, from (0, 1/15] to (14/15, 1].

    Returns:
        For each bin its bounds, number of samples, mean confidence and accuracy.
    """
    predictions = predicted(probabilities)
    confidence = probabilities[np.arange(len(labels)), predictions].astype(np.float64)
    bin_index = np.clip(np.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1)
    rows = []
    for i in np.unique(bin_index).astype(int).tolist():
        inside = bin_index == i
        bounds = {
            "lower": i / CALIBRATION_BINS,
            "upper": (i + 1) / CALIBRATION_BINS,
            "count": int(inside.sum()),
        }
        mean, acc = (
            float(confidence[inside].mean()),
            float(np.mean(predictions[inside] == labels[inside])),
        )
        rows.append({**bounds, "confidence": mean, "acc": acc})
    return rows
