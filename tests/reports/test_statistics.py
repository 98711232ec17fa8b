"""Intervals and tests against independent references."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from reports.statistics import macro_f1_interval, mcnemar_exact, roc_auc_interval, wilson_interval


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (10, 10), (1039, 1070), (1, 2), (500, 1000)])
def test_wilson_bounds_solve_the_score_equation(hits: int, total: int) -> None:
    """At a bound p, the share lies 1.96 standard errors of p away (Wilson 1927)."""
    share = hits / total
    for p in wilson_interval(hits, total):
        assert (share - p) ** 2 == pytest.approx(
            1.959963984540054**2 * p * (1 - p) / total, abs=1e-12
        )


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 5), (5, 0), (7, 7), (12, 30), (700, 650)]
)
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    total = first + second
    tail = sum(math.comb(total, k) for k in range(min(first, second) + 1))
    assert mcnemar_exact(first, second) == pytest.approx(min(1.0, 2 * tail / 2**total), rel=1e-9)


def test_f1_interval_equals_resampling_samples() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    predictions = np.where(rng.random(300) < 0.8, labels, rng.integers(0, 3, 300))
    confusion = np.zeros((3, 3), dtype=int)
    np.add.at(confusion, (labels, predictions), 1)
    drawn = []
    for _ in range(1000):
        chosen = rng.integers(0, 300, 300)
        drawn.append(f1_score(labels[chosen], predictions[chosen], average="macro"))
    assert macro_f1_interval(confusion.tolist()) == pytest.approx(
        tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.01
    )
    assert macro_f1_interval(confusion.tolist()) == macro_f1_interval(confusion.tolist())


def test_auc_interval_equals_resampling_samples() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(200) < 0.4
    scores = np.round(rng.normal(positive.astype(float)), 1)  # with ties
    drawn = []
    for _ in range(1000):
        chosen = rng.integers(0, 200, 200)
        drawn.append(roc_auc_score(positive[chosen], scores[chosen]))
    interval = roc_auc_interval(scores.tolist(), positive.tolist())
    assert interval == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.01)
    assert roc_auc_interval([0.1, 0.2], [True, True]) is None
