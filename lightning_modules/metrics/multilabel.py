"""Metrics of samples with several labels each, in float64. `N` samples, `K` labels.

The definitions are scikit-learn's with `zero_division=0`: macro averages cover all K labels, and
the F1 and the average precision of a label without positive samples are 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.metrics.totals import StageResult, StageTotals

DEFAULT_THRESHOLD = 0.5

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MultilabelResult(StageResult):
    """The result of a stage.

    Attributes:
        labels: Metrics, counts and threshold of each label; see `per_label_metrics`. The average
            precision is None if samples were not kept.
        thresholds: [K] float32; a label is predicted if its probability is at least its threshold.
        samples: Index [N], probabilities [N, K] and labels [N, K], ordered by index; None if they
            were not kept.
    """

    labels: list[dict[str, Any]]
    thresholds: Tensor
    samples: tuple[Tensor, Tensor, Tensor] | None


class MultilabelTotals(StageTotals):
    """The totals of one stage.

    Attributes:
        hits, predicted, positives: [K] int64; samples that are correctly predicted to have a label,
            that are predicted to have it, and that have it. At the threshold 0.5.
        exact: Number of samples with all labels correct, int64, at the threshold 0.5.
        count: Number of samples, int64.
        index, probabilities, labels: Those of each sample, if samples are kept.
        thresholds: [K] thresholds of the metrics, if samples are kept; None chooses them from these
            samples with `best_thresholds`.
    """

    hits: Tensor
    predicted: Tensor
    positives: Tensor
    exact: Tensor
    count: Tensor
    index: list[Tensor] | Tensor
    probabilities: list[Tensor] | Tensor
    labels: list[Tensor] | Tensor

    def __init__(self, num_labels: int, *, keep_samples: bool) -> None:
        """Initialise all totals to zero.

        Args:
            num_labels: K.
            keep_samples: Whether to keep the probabilities of every sample, for thresholds,
                average precision and predictions.
        """
        super().__init__()
        self.num_labels, self.keep_samples = num_labels, keep_samples
        self.thresholds: Tensor | None = None
        for name in ("hits", "predicted", "positives"):
            self.add_state(name, torch.zeros(num_labels, dtype=torch.int64), "sum")
        for name in ("exact", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), "sum")
        self.add_list("index", (), torch.int64)
        for name in ("probabilities", "labels"):
            self.add_list(name, (num_labels,), torch.float32)

    def update(self, loss: Tensor, probabilities: Tensor, labels: Tensor, index: Tensor) -> None:
        """Add a batch.

        Args:
            loss: Mean loss of the batch.
            probabilities: [B, K] float32.
            labels: [B, K] float32, 0 or 1.
            index: [B] int64, rows of the samples in the data set.
        """
        self.add_loss(loss, len(labels))
        self.count += len(labels)
        if self.keep_samples:
            for name, value in (
                ("index", index),
                ("probabilities", probabilities),
                ("labels", labels),
            ):
                self.add_to_list(name, value)
            return
        chosen, present = probabilities >= DEFAULT_THRESHOLD, labels > 0
        self.hits += (chosen & present).sum(dim=0)
        self.predicted += chosen.sum(dim=0)
        self.positives += present.sum(dim=0)
        self.exact += (chosen == present).all(dim=1).sum()

    def result(self) -> MultilabelResult:
        """Return the metrics of `multilabel_metrics`, the loss, and the metrics of each label."""
        count = int(self.count)
        samples, thresholds = None, torch.full((self.num_labels,), DEFAULT_THRESHOLD)
        precisions: list[float | None] = [None] * self.num_labels
        counts = [values.cpu().numpy() for values in (self.hits, self.predicted, self.positives)]
        exact = int(self.exact)
        if self.keep_samples:
            sorted_samples = self.sorted_by_index("probabilities", "labels")
            index, probabilities, labels = (values.cpu() for values in sorted_samples)
            samples = index, probabilities, labels
            scores, present = samples[1].float().numpy(), samples[2].numpy() > 0
            if self.thresholds is not None:
                thresholds = self.thresholds.cpu()
            else:
                thresholds = torch.from_numpy(best_thresholds(scores, present))
            chosen = scores >= thresholds.numpy()
            counts = [array.sum(axis=0) for array in (chosen & present, chosen, present)]
            exact = int((chosen == present).all(axis=1).sum())
            precisions = [
                average_precision(scores[:, k], present[:, k]) for k in range(self.num_labels)
            ]
        metrics: dict[str, float | None] = {
            **multilabel_metrics(counts, exact, count),
            "map": float(np.mean(precisions)) if self.keep_samples and counts[2].any() else None,  # type: ignore[arg-type]
            "loss": self.loss_sum / count if count else None,
        }
        rows = per_label_metrics(counts)
        for row, precision, threshold in zip(rows, precisions, thresholds.tolist(), strict=True):
            row |= {"average_precision": precision, "threshold": threshold}
        return MultilabelResult(metrics, count, rows, thresholds, samples if count else None)


def f1_of(hits: _Array, predicted: _Array, positives: _Array) -> _Array:
    """Return F1 from counts, 2 hits / (predicted + positives); 0 where it is undefined."""
    whole = np.asarray(predicted + positives)
    return np.asarray(np.divide(2 * hits, whole, out=np.zeros(whole.shape), where=whole > 0))


def multilabel_metrics(counts: Sequence[_Array], exact: int, count: int) -> dict[str, float | None]:
    """Return the metrics that counts suffice for.

    Args:
        counts: Hits, predicted and positive samples of each label, [K] each; see
            `MultilabelTotals`.
        exact: Number of samples with all labels correct.
        count: N.

    Returns:
        `f1_micro`, `f1_macro`, `exact_match` (subset accuracy) and `hamming_loss` (share of wrong
        entries), 0..1; None without samples. F1 is None too if no label is present or predicted.
    """
    if not count:
        return dict.fromkeys(("f1_micro", "f1_macro", "exact_match", "hamming_loss"))
    hits, predicted, positives = counts
    found = bool((predicted + positives).any())
    wrong = int(predicted.sum() + positives.sum() - 2 * hits.sum())
    return {
        "f1_micro": float(f1_of(hits.sum(), predicted.sum(), positives.sum())) if found else None,
        "f1_macro": float(np.mean(f1_of(hits, predicted, positives))) if found else None,
        "exact_match": exact / count,
        "hamming_loss": wrong / (count * len(hits)),
    }


def per_label_metrics(counts: Sequence[_Array]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and counts of each label; undefined metrics are None.

    Args:
        counts: Hits, predicted and positive samples of each label, [K] each.

    Returns:
        One dict for each label. F1 is undefined if the label is neither present nor predicted.
    """
    return [
        {
            "precision": hits / predicted if predicted else None,
            "recall": hits / positives if positives else None,
            "f1": 2 * hits / (predicted + positives) if predicted + positives else None,
            "hits": hits,
            "predicted": predicted,
            "positives": positives,
        }
        for hits, predicted, positives in zip(*(c.tolist() for c in counts), strict=True)
    ]


def average_precision(scores: _Array, present: _Array) -> float:
    """Return the average precision of one label: sum over n of (R_n - R_(n-1)) P_n.

    R_n and P_n are recall and precision of the samples whose score is at least the n-th highest
    distinct score. Nothing is interpolated.

    Args:
        scores: [N].
        present: [N] bool.

    Returns:
        The average precision, 0..1; 0 without a positive sample.
    """
    positives = int(present.sum())
    if not positives:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(present[order])[last]
    recall, precision = hits / positives, hits / (last + 1)
    # Summed from the lowest score, as scikit-learn does: the last digit depends on the order.
    steps = np.diff(np.append(0.0, recall))[::-1]
    return float(np.sum(steps * precision[::-1]))


def best_thresholds(scores: _Array, present: _Array) -> npt.NDArray[np.float32]:
    """Return the threshold of each label that has the highest F1 on these samples.

    Thresholds lie in the middle between two scores that occur. If several are equally good, the
    nearest to 0.5 is chosen. A label without positive samples keeps 0.5.

    Args:
        scores: [N, K] probabilities.
        present: [N, K] bool.

    Returns:
        [K] float32.
    """
    return np.array(
        [_best_threshold(scores[:, k], present[:, k]) for k in range(scores.shape[1])], np.float32
    )


def _best_threshold(scores: _Array, present: _Array) -> float:
    positives = int(present.sum())
    if not positives:
        return DEFAULT_THRESHOLD
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    f1 = f1_of(np.cumsum(present[order])[last], last + 1, np.asarray(positives))
    lowest = ranked[last]  # the lowest score that is still predicted
    below = np.append(lowest[1:], 0.0)
    middle = ((lowest + below) / 2).astype(np.float32).astype(np.float64)
    # Between neighbouring float32 numbers there is no middle.
    candidates = np.where(middle > below, middle, lowest)
    # Any threshold between `below` and `lowest` predicts the same samples.
    inside = (below < DEFAULT_THRESHOLD) & (lowest >= DEFAULT_THRESHOLD)
    candidates[inside] = DEFAULT_THRESHOLD
    best = np.flatnonzero(f1 == f1.max())
    return float(candidates[best[np.argmin(np.abs(candidates[best] - DEFAULT_THRESHOLD))]])
