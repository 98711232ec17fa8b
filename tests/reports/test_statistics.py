"""Intervals and tests against independent references."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score, roc_auc_score

from reports.statistics import macro_f1_interval, mcnemar_exact, roc_auc_interval, wilson_interval


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (10, 10), (1039, 1070), (1, 2), (500, 1000)])
def test_wilson_equals_scipy(hits: int, total: int) -> None:
    reference = binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson_interval(hits, total) == pytest.approx((reference.low, reference.high), abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (5, 0), (7, 7), (12, 30), (700, 650)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(expected, rel=1e-9)


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
    assert macro_f1_interval(confusion.tolist()) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.01)
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
