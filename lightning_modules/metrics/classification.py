"""Classification metrics from counts. A stage keeps sums; each metric is computed once, from the whole. `K` classes."""

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
    """What a stage of classification came to.

    Attributes:
        classes: Precision, recall, F1 and support of each class.
        confusion: [K][K] counts, row the label, column the prediction.
        calibration: Bins of the reliability diagram.
        samples: Index [N], probabilities [N, K] and labels [N], ordered by index; None where they
            were not kept.
    """

    classes: list[dict[str, float]]
    confusion: list[list[int]]
    calibration: list[dict[str, float]]
    samples: tuple[Tensor, Tensor, Tensor] | None


class ClassificationTotals(StageTotals):
    """The sums of one stage of classification.

    Attributes:
        confusion: [K, K] int64, row the label, column the prediction.
        bin_counts, bin_confidence, bin_correct: [15] sums of the most probable class's probability,
            by that probability.
        index, probabilities, labels: Of each sample, where they are kept.
    """

    confusion: Tensor
    bin_counts: Tensor
    bin_confidence: Tensor
    bin_correct: Tensor
    index: list[Tensor] | Tensor
    probabilities: list[Tensor] | Tensor
    labels: list[Tensor] | Tensor

    def __init__(self, num_classes: int, *, keep_samples: bool) -> None:
        """Start from nothing.

        Args:
            num_classes: K.
            keep_samples: Whether probabilities of every sample are kept, for predictions and
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
            loss: Mean over the batch.
            probabilities: [B, K], rows sum to 1.
            labels: [B] int64.
            index: [B] int64, the samples' rows.
        """
        self.add_loss(loss, len(labels))
        confidence, predictions = predicted(probabilities)
        cells = labels * self.num_classes + predictions
        self.confusion += torch.bincount(cells, minlength=self.num_classes**2).view_as(
            self.confusion
        )
        # Bins are open below and closed above, (0, 1/15] to (14/15, 1].
        # A NaN counts nowhere here; the loss carries it to where it ends the run.
        confidence = torch.nan_to_num(confidence)
        bins = (
            (torch.ceil(confidence.to(SUM_DTYPE) * CALIBRATION_BINS) - 1)
            .clamp(0, CALIBRATION_BINS - 1)
            .long()
        )
        self.bin_counts += torch.bincount(bins, minlength=CALIBRATION_BINS)
        # Sums of float32 in float64 are exact, and so do not depend on the order, up to half a
        # million samples of 1000 classes.
        self.bin_confidence.index_add_(0, bins, confidence.to(SUM_DTYPE))
        self.bin_correct.index_add_(0, bins, (predictions == labels).long())
        if self.keep_samples:
            for name, value in (
                ("index", index),
                ("probabilities", probabilities),
                ("labels", labels),
            ):
                getattr(self, name).append(value.clone())  # what a worker sent keeps a file open

    def result(self) -> ClassificationResult:
        """The metrics, see `metrics_from_counts`, with loss, calibration and for two classes the ranking metrics."""
        confusion: list[list[int]] = self.confusion.tolist()
        count = sum(map(sum, confusion))
        metrics = metrics_from_counts(self.confusion)
        metrics["loss"] = self.loss_sum / count if count else None
        metrics["ece"] = expected_calibration_error(
            self.bin_counts, self.bin_confidence, self.bin_correct
        )
        samples = None
        if self.keep_samples and count:
            index, probabilities, labels = (values.cpu() for values in self.samples())
            samples = index, probabilities, labels
            if self.num_classes == 2:  # noqa: PLR2004
                metrics |= ranking_metrics(probabilities[:, 1], labels)
        return ClassificationResult(
            metrics, count, per_class_metrics(confusion), confusion, self.calibration(), samples
        )

    def samples(self) -> tuple[Tensor, Tensor, Tensor]:
        """Index [N], probabilities [N, K] and labels [N] of the kept samples, ordered by index."""
        index, probabilities, labels = (
            self.listed(name) for name in ("index", "probabilities", "labels")
        )
        order = torch.argsort(index)
        return index[order], probabilities[order], labels[order]

    def calibration(self) -> list[dict[str, float]]:
        """The bins that hold samples: bounds, count, mean confidence, accuracy."""
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
    """Probability [B] and number [B] of the most probable class; at exactly one half, class 1 of two."""
    if probabilities.shape[1] == 2:  # noqa: PLR2004
        predictions = (probabilities[:, 1] >= probabilities[:, 0]).long()
        return probabilities.gather(1, predictions[:, None])[:, 0], predictions
    best = probabilities.max(dim=1)
    return best.values, best.indices


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def per_class_metrics(confusion: Sequence[Sequence[int]]) -> list[dict[str, float]]:
    """Precision, recall, F1 (0 where undefined) and support of each class.

    Args:
        confusion: [K][K] counts, row the label, column the prediction.

    Returns:
        One dict a class.
    """
    metrics = []
    for k, row in enumerate(confusion):
        hits, support, claimed = row[k], sum(row), sum(other[k] for other in confusion)
        precision, recall = _ratio(hits, claimed), _ratio(hits, support)
        f1 = _ratio(2 * hits, support + claimed)
        metrics.append({"precision": precision, "recall": recall, "f1": f1, "support": support})
    return metrics


def metrics_from_counts(confusion: Tensor) -> dict[str, Any]:
    """Accuracy and the averages over classes.

    Macro averages run over the classes that occur as label or prediction; weighted ones are
    weighted by support. Micro averages all equal the accuracy where each sample has one label.

    Args:
        confusion: [K, K] int64.

    Returns:
        `acc`, `precision_macro`, `precision_weighted`, and so on for recall and f1; None where
        there is no sample.
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
    """Mean gap between confidence and accuracy over bins, weighted by count (Naeini, Cooper & Hauskrecht, AAAI 2015).

    Args:
        counts: [bins] samples.
        confidence: [bins] sum of the predicted class's probability.
        correct: [bins] number of right predictions.

    Returns:
        0..1, or None without samples.
    """
    total = int(counts.sum())
    return float((confidence - correct).abs().sum() / total) if total else None


def ranking_metrics(scores: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Area under the ROC curve and average precision of class 1.

    Args:
        scores: [N] probability of class 1.
        labels: [N] 0 or 1.

    Returns:
        `roc_auc` and `average_precision`; None where one of the classes is absent.
    """
    if len(torch.unique(labels)) < 2:  # noqa: PLR2004
        return {"roc_auc": None, "average_precision": None}
    auc, precision = binary_auroc(scores, labels), binary_average_precision(scores, labels)
    return {"roc_auc": float(auc), "average_precision": float(precision)}


def metric_names(num_classes: int) -> list[str]:
    """The names that `compute` gives, for checking a monitor before anything runs."""
    totals = ClassificationTotals(num_classes, keep_samples=False)
    ranking: Mapping[str, None] = (
        {"roc_auc": None, "average_precision": None} if num_classes == 2 else {}  # noqa: PLR2004
    )
    return [*metrics_from_counts(totals.confusion), "loss", "ece", *ranking]
