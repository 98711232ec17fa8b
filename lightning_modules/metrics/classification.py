"""Classification metrics computed from counts.

A stage accumulates counts and sums. Each metric is computed once, from the totals of the whole
split. `K` is the number of classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from lightning_modules.metrics.totals import SUM_DTYPE, StageResult, StageTotals

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassificationResult(StageResult):
    """The result of a classification stage.

    Attributes:
        classes: Precision, recall, F1 and support of each class.
        confusion: [K][K] counts; rows are labels, columns are predictions.
        calibration: Bins of the reliability diagram.
        samples: Index [N], probabilities [N, K] and labels [N], ordered by index; None if they were
            not kept.
    """

    classes: list[dict[str, float]]
    confusion: list[list[int]]
    calibration: list[dict[str, float]]
    samples: tuple[Tensor, Tensor, Tensor] | None


class ClassificationTotals(StageTotals):
    """The totals of one classification stage.

    Samples are sorted into calibration bins by confidence, the probability of the predicted class.

    Attributes:
        confusion: [K, K] int64; rows are labels, columns are predictions.
        bin_counts: [15] number of samples in each bin.
        bin_confidence: [15] sum of the confidences in each bin.
        bin_correct: [15] number of correct predictions in each bin.
        index: Index of each sample, if samples are kept.
        probabilities: Class probabilities of each sample, if samples are kept.
        labels: Label of each sample, if samples are kept.
    """

    confusion: Tensor
    bin_counts: Tensor
    bin_confidence: Tensor
    bin_correct: Tensor
    index: list[Tensor] | Tensor
    probabilities: list[Tensor] | Tensor
    labels: list[Tensor] | Tensor

    def __init__(self, num_classes: int, *, keep_samples: bool) -> None:
        """Initialise all totals to zero.

        Args:
            num_classes: K.
            keep_samples: Whether to keep the probabilities of every sample, for predictions and
                ranking metrics.
        """
        super().__init__()
        self.num_classes = num_classes
        self.keep_samples = keep_samples
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), "sum")
        self.add_state("bin_counts", torch.zeros(CALIBRATION_BINS, dtype=torch.int64), "sum")
        self.add_state("bin_confidence", torch.zeros(CALIBRATION_BINS, dtype=SUM_DTYPE), "sum")
        self.add_state("bin_correct", torch.zeros(CALIBRATION_BINS, dtype=torch.int64), "sum")
        self.add_list("index", (), torch.int64)
        self.add_list("probabilities", (num_classes,), torch.float32)
        self.add_list("labels", (), torch.int64)

    def update(self, loss: Tensor, probabilities: Tensor, labels: Tensor, index: Tensor) -> None:
        """Add a batch.

        Args:
            loss: Mean loss of the batch.
            probabilities: [B, K]; rows sum to 1.
            labels: [B] int64.
            index: [B] int64, rows of the samples in the data set.
        """
        self.add_loss(loss, len(labels))
        confidence, predictions = predicted(probabilities)
        cells = labels * self.num_classes + predictions
        self.confusion += torch.bincount(cells, minlength=self.num_classes**2).view_as(
            self.confusion
        )
        # Bins are half-open intervals, (0, 1/15] to (14/15, 1].
        # NaN becomes 0 here. The loss is NaN too, and ends the run.
        confidence = torch.nan_to_num(confidence)
        bins = (
            (torch.ceil(confidence.to(SUM_DTYPE) * CALIBRATION_BINS) - 1)
            .clamp(0, CALIBRATION_BINS - 1)
            .long()
        )
        self.bin_counts += torch.bincount(bins, minlength=CALIBRATION_BINS)
        # Sums of float32 values in float64 are exact up to half a million samples of 1000 classes,
        # and therefore do not depend on the order.
        self.bin_confidence.index_add_(0, bins, confidence.to(SUM_DTYPE))
        self.bin_correct.index_add_(0, bins, (predictions == labels).long())
        if self.keep_samples:
            for name, value in (
                ("index", index),
                ("probabilities", probabilities),
                ("labels", labels),
            ):
                self.add_to_list(name, value)

    def result(self) -> ClassificationResult:
        """Return the metrics of `metrics_from_counts`, the loss, the calibration and the samples.

        With two classes and kept samples, the ranking metrics are included.
        """
        confusion: list[list[int]] = self.confusion.tolist()
        count = sum(map(sum, confusion))
        metrics = metrics_from_counts(self.confusion)
        metrics["loss"] = self.loss_sum / count if count else None
        metrics["ece"] = expected_calibration_error(
            self.bin_counts, self.bin_confidence, self.bin_correct
        )
        samples = None
        if self.keep_samples and count:
            sorted_samples = self.sorted_by_index("probabilities", "labels")
            index, probabilities, labels = (values.cpu() for values in sorted_samples)
            samples = index, probabilities, labels
            if self.num_classes == 2:  # noqa: PLR2004
                metrics |= ranking_metrics(probabilities[:, 1], labels)
        return ClassificationResult(
            metrics, count, per_class_metrics(confusion), confusion, self.calibration(), samples
        )

    def calibration(self) -> list[dict[str, float]]:
        """Return the non-empty bins: bounds, count, mean confidence and accuracy."""
        bins = []
        for i, count in enumerate(self.bin_counts.tolist()):
            if count:
                mean = float(self.bin_confidence[i]) / count
                bounds = {"lower": i / CALIBRATION_BINS, "upper": (i + 1) / CALIBRATION_BINS}
                bins.append(
                    {
                        **bounds,
                        "count": count,
                        "confidence": mean,
                        "acc": int(self.bin_correct[i]) / count,
                    }
                )
        return bins


def predicted(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probability [B] and the number [B] of the most probable class.

    With two classes of equal probability, class 1 is predicted.
    """
    if probabilities.shape[1] == 2:  # noqa: PLR2004
        predictions = (probabilities[:, 1] >= probabilities[:, 0]).long()
        return probabilities.gather(1, predictions[:, None])[:, 0], predictions
    best = probabilities.max(dim=1)
    return best.values, best.indices


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def per_class_metrics(confusion: Sequence[Sequence[int]]) -> list[dict[str, float]]:
    """Return precision, recall, F1 and support of each class; undefined metrics are 0.

    Args:
        confusion: [K][K] counts; rows are labels, columns are predictions.

    Returns:
        One dict per class.
    """
    metrics = []
    for k, row in enumerate(confusion):
        hits, support, num_predicted = row[k], sum(row), sum(other[k] for other in confusion)
        precision, recall = _ratio(hits, num_predicted), _ratio(hits, support)
        f1 = _ratio(2 * hits, support + num_predicted)
        metrics.append({"precision": precision, "recall": recall, "f1": f1, "support": support})
    return metrics


def metrics_from_counts(confusion: Tensor) -> dict[str, Any]:
    """Return the accuracy and the macro and weighted averages over classes.

    Macro averages cover the classes that occur as label or prediction. Weighted averages are
    weighted by support. There are no micro averages: with one label per sample, all of them equal
    the accuracy.

    Args:
        confusion: [K, K] int64; rows are labels, columns are predictions.

    Returns:
        `acc`, `precision_macro`, `precision_weighted`, and the same averages of recall and f1; None
        if there are no samples.
    """
    counts: list[list[int]] = confusion.tolist()
    classes = per_class_metrics(counts)
    total = sum(sum(row) for row in counts)
    present = [c for k, c in enumerate(classes) if c["support"] or any(row[k] for row in counts)]
    metrics: dict[str, Any] = {
        "acc": sum(row[k] for k, row in enumerate(counts)) / total if total else None
    }
    for name in ("precision", "recall", "f1"):
        metrics[f"{name}_macro"] = sum(c[name] for c in present) / len(present) if present else None
        metrics[f"{name}_weighted"] = (
            sum(c[name] * c["support"] for c in classes) / total if total else None
        )
    return metrics


def expected_calibration_error(counts: Tensor, confidence: Tensor, correct: Tensor) -> float | None:
    """Return the expected calibration error (Naeini, Cooper & Hauskrecht, AAAI 2015).

    It is the mean absolute difference of confidence and accuracy over bins, weighted by count.

    Args:
        counts: [bins] number of samples.
        confidence: [bins] sum of the predicted class's probability.
        correct: [bins] number of correct predictions.

    Returns:
        The error, 0..1; None without samples.
    """
    total = int(counts.sum())
    return float((confidence - correct).abs().sum() / total) if total else None


def ranking_metrics(scores: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Return the area under the ROC curve and the average precision of class 1.

    Args:
        scores: [N] probability of class 1.
        labels: [N] 0 or 1.

    Returns:
        `roc_auc` and `average_precision`; None if one of the classes is absent.
    """
    if len(torch.unique(labels)) < 2:  # noqa: PLR2004
        return {"roc_auc": None, "average_precision": None}
    auc, precision = binary_auroc(scores, labels), binary_average_precision(scores, labels)
    return {"roc_auc": float(auc), "average_precision": float(precision)}


def metric_names(num_classes: int) -> list[str]:
    """Return the names of the metrics in `compute`, to check `monitor` before the run starts."""
    totals = ClassificationTotals(num_classes, keep_samples=False)
    ranking: Mapping[str, None] = (
        {"roc_auc": None, "average_precision": None} if num_classes == 2 else {}  # noqa: PLR2004
    )
    return [*metrics_from_counts(totals.confusion), "loss", "ece", *ranking]
