"""Confidence intervals of metrics, and tests of whether a difference is significant."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

_RESAMPLES = 1000
_CHUNK = 100

Interval = tuple[float, float]


def wilson_interval(hits: int, total: int) -> Interval:
    """Return the 95 % score interval of a proportion (Wilson, JASA 22, 1927).

    Args:
        hits: Successes.
        total: Trials, at least 1.

    Returns:
        Bounds in 0..1.
    """
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def macro_f1_interval(confusion: Sequence[Sequence[int]]) -> Interval:
    """Return the 95 % percentile bootstrap interval of the macro F1.

    Resampling the samples is the same as drawing the matrix's cells from a multinomial.

    Args:
        confusion: [K][K] counts, row the label, column the prediction.

    Returns:
        Bounds in 0..1.
    """
    counts: npt.NDArray[np.int64] = np.asarray(confusion, dtype=np.int64)
    total = int(counts.sum())
    drawn = np.random.default_rng(0).multinomial(total, counts.ravel() / total, size=_RESAMPLES)
    drawn = drawn.reshape(-1, *counts.shape)
    margins = drawn.sum(axis=1) + drawn.sum(axis=2)
    hits = np.diagonal(drawn, axis1=1, axis2=2)
    present = margins > 0
    f1 = np.divide(2 * hits, margins, out=np.zeros(margins.shape), where=present)
    return percentile_interval(f1.sum(axis=1) / present.sum(axis=1))


def multilabel_f1_intervals(
    present: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]
) -> tuple[Interval, Interval]:
    """Return the 95 % percentile bootstrap intervals of micro and macro F1 over samples.

    Args:
        present: [N, K] whether a sample has a label.
        predicted: [N, K] whether it is predicted.

    Returns:
        Bounds of micro F1 and of macro F1, in 0..1. The F1 of a label that is neither present nor
        predicted is 0.
    """
    terms = [values.astype(np.float64) for values in (present & predicted, present, predicted)]
    sums = [[drawn @ values for values in terms] for drawn in resample_counts(len(present))]
    hits, positives, chosen = (np.concatenate(parts) for parts in zip(*sums, strict=True))
    margins = positives + chosen

    def f1(hits: Any, margins: Any) -> Any:  # noqa: ANN401 - arrays of any shape
        return np.divide(2 * hits, margins, out=np.zeros(margins.shape), where=margins > 0)

    micro, macro = f1(hits.sum(axis=1), margins.sum(axis=1)), f1(hits, margins).mean(axis=1)
    return percentile_interval(micro), percentile_interval(macro)


def roc_auc_interval(scores: Sequence[float], positive: Sequence[bool]) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of the area under the ROC curve.

    Args:
        scores: [N] probability of the positive class.
        positive: [N] whether the sample is of that class.

    Returns:
        Bounds in 0..1, or None if a class is absent.
    """
    flags: npt.NDArray[np.bool_] = np.asarray(positive, dtype=bool)
    if flags.all() or not flags.any():
        return None
    values: npt.NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    flags = flags[order]
    areas: list[npt.NDArray[np.float64]] = []
    for drawn in resample_counts(len(flags)):
        hits = np.add.reduceat(drawn * flags, starts, axis=1)
        misses = np.add.reduceat(drawn * ~flags, starts, axis=1)
        below = np.cumsum(misses, axis=1) - misses
        pairs = hits.sum(axis=1) * misses.sum(axis=1)
        areas.append(((hits * (below + misses / 2)).sum(axis=1) / np.maximum(pairs, 1))[pairs > 0])
    return percentile_interval(np.concatenate(areas))


def mean_interval(values: "pd.Series[float]") -> Interval | None:
    """Return the 95 % percentile bootstrap interval of a mean over images.

    Args:
        values: [N] one value per image; NaN is ignored.

    Returns:
        The bounds, or None if fewer than two images have a value.
    """
    known = values.dropna().to_numpy()
    if len(known) < 2:  # noqa: PLR2004
        return None
    rng = np.random.default_rng(0)
    means = [known[rng.integers(0, len(known), len(known))].mean() for _ in range(_RESAMPLES)]
    return percentile_interval(np.asarray(means))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p-value of McNemar's test (Psychometrika 12, 1947).

    The null hypothesis is that both classifiers have the same accuracy.

    Args:
        only_first: Samples that only the first classifier predicts correctly.
        only_second: Samples that only the second classifier predicts correctly.

    Returns:
        Probability, under the null hypothesis, of a split at least as uneven.
    """
    total = only_first + only_second
    return float(binomtest(only_first, total).pvalue) if total else 1.0


def smallest_difference(differing: int, total: int, significance: float) -> float | None:
    """Return the smallest difference of two accuracies that McNemar's exact test would find.

    Args:
        differing: Samples that only one of the two classifiers predicts correctly.
        total: All samples.
        significance: The p-value below which the test finds a difference.

    Returns:
        A difference in 0..1; None if the test finds none among so few samples.
    """
    for more in range(differing // 2 + 1, differing + 1):
        if mcnemar_exact(more, differing - more) < significance:
            return (2 * more - differing) / total
    return None


def resample_counts(count: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield how often each sample is drawn in each of 1000 bootstrap resamples.

    Args:
        count: Number of samples N.

    Yields:
        [100, N] counts; each row sums to N. The seed is fixed.
    """
    rng, shares = np.random.default_rng(0), np.full(count, 1 / count)
    for _ in range(_RESAMPLES // _CHUNK):
        yield rng.multinomial(count, shares, size=_CHUNK)


def percentile_interval(values: npt.NDArray[np.float64]) -> Interval:
    """Return the 2.5th and the 97.5th percentile of a metric over resamples."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
