"""Metrics equal those of scikit-learn, on random and on degenerate cases."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from lightning_modules.metrics.classification import (
    CALIBRATION_BINS,
    ClassificationTotals,
    metric_names,
    per_class_metrics,
    predicted,
)


def totals_of(
    probabilities: np.ndarray, labels: np.ndarray, losses: np.ndarray | None = None, batch: int = 7
) -> ClassificationTotals:
    totals = ClassificationTotals(probabilities.shape[1], keep_samples=True)
    order = np.random.default_rng(1).permutation(len(labels))
    losses = np.zeros(len(labels)) if losses is None else losses
    for start in range(0, len(labels), batch):
        chosen = order[start : start + batch]
        totals.update(
            torch.tensor(losses[chosen].mean()),
            torch.tensor(probabilities[chosen]),
            torch.tensor(labels[chosen]),
            torch.tensor(chosen),
        )
    return totals


def random_case(classes: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    logits = rng.normal(size=(size, classes)) + 1.2 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels


def degenerate(name: str) -> tuple[np.ndarray, np.ndarray]:
    probabilities, labels = random_case(3, 60, seed=5)
    if name == "never predicted":
        probabilities[:, 2] = 0
        return probabilities / probabilities.sum(axis=1, keepdims=True), labels
    if name == "never present":
        return probabilities, labels % 2
    if name == "neither":
        probabilities[:, 2] = 0
        return probabilities / probabilities.sum(axis=1, keepdims=True), labels % 2
    return probabilities[:1], labels[:1]


CASES = [random_case(k, n, s) for k, n, s in ((2, 501, 0), (2, 8, 1), (3, 200, 2), (10, 997, 3))]
CASES += [
    degenerate(name) for name in ("never predicted", "never present", "neither", "one sample")
]


@pytest.mark.parametrize(("probabilities", "labels"), CASES)
def test_counts_equal_scikit_learn(probabilities: np.ndarray, labels: np.ndarray) -> None:
    totals = totals_of(probabilities, labels)
    metrics, predictions = totals.compute(), probabilities.argmax(axis=1)
    classes = probabilities.shape[1]
    np.testing.assert_array_equal(
        totals.confusion.numpy(), sk.confusion_matrix(labels, predictions, labels=range(classes))
    )
    assert metrics["acc"] == pytest.approx(sk.accuracy_score(labels, predictions), abs=1e-12)
    for average in ("macro", "weighted"):
        expected = sk.precision_recall_fscore_support(
            labels, predictions, average=average, zero_division=0
        )[:3]
        ours = [metrics[f"{name}_{average}"] for name in ("precision", "recall", "f1")]
        assert ours == pytest.approx(expected, abs=1e-12)
    micro = sk.precision_recall_fscore_support(labels, predictions, average="micro")[:3]
    assert micro == pytest.approx([metrics["acc"]] * 3)
    expected = sk.precision_recall_fscore_support(
        labels, predictions, labels=range(classes), zero_division=0
    )
    ours = per_class_metrics(totals.confusion.tolist())
    for row, name in zip(expected, ("precision", "recall", "f1", "support"), strict=True):
        assert [c[name] for c in ours] == pytest.approx(row, abs=1e-12)


@pytest.mark.parametrize(("probabilities", "labels"), CASES[:2])
def test_ranking_equals_scikit_learn(probabilities: np.ndarray, labels: np.ndarray) -> None:
    coarse = np.round(probabilities, 1)  # with ties
    for scores in (probabilities, coarse / coarse.sum(axis=1, keepdims=True)):
        metrics = totals_of(scores, labels).compute()
        assert metrics["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, scores[:, 1]), abs=1e-6)
        assert metrics["average_precision"] == pytest.approx(
            sk.average_precision_score(labels, scores[:, 1]), abs=1e-6
        )


@pytest.mark.parametrize("label", [0, 1])
def test_ranking_metrics_of_one_class_are_none(label: int) -> None:
    probabilities, _ = random_case(2, 20, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = totals_of(probabilities, np.full(20, label)).compute()
    assert metrics["roc_auc"] is None
    assert metrics["average_precision"] is None
    assert metrics["acc"] is not None


@pytest.mark.parametrize(("probabilities", "labels"), CASES)
def test_calibration_error_equals_its_definition(
    probabilities: np.ndarray, labels: np.ndarray
) -> None:
    confidence, right = (
        probabilities.max(axis=1).astype(float),
        probabilities.argmax(axis=1) == labels,
    )
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    totals = totals_of(probabilities, labels)
    assert totals.compute()["ece"] == pytest.approx(expected, abs=1e-9)
    bins = totals.calibration()
    assert sum(b["count"] for b in bins) == len(labels)
    assert all(b["lower"] < b["confidence"] <= b["upper"] for b in bins)


def test_kept_samples_are_copies() -> None:
    """A tensor from a worker process keeps a file open as long as it exists."""
    totals = ClassificationTotals(2, keep_samples=True)
    given = {
        "probabilities": torch.tensor([[0.2, 0.8]]),
        "labels": torch.tensor([1]),
        "index": torch.tensor([0]),
    }
    totals.update(torch.tensor(0.5), **given)
    assert all(
        getattr(totals, name)[0].data_ptr() != value.data_ptr() for name, value in given.items()
    )


def test_loss_is_the_mean_over_samples_not_over_batches() -> None:
    probabilities, labels = random_case(3, 50, seed=0)
    losses = np.random.default_rng(0).exponential(size=50)
    assert totals_of(probabilities, labels, losses).compute()["loss"] == pytest.approx(
        losses.mean(), abs=1e-12
    )


def test_metrics_do_not_depend_on_the_batches() -> None:
    probabilities, labels = random_case(2, 101, seed=4)
    first, second = (totals_of(probabilities, labels, batch=size) for size in (1, 101))
    assert first.compute()["f1_macro"] == second.compute()["f1_macro"]
    assert torch.equal(
        first.sorted_by_index("probabilities")[1], second.sorted_by_index("probabilities")[1]
    )
    assert first.sorted_by_index()[0].tolist() == list(range(101))


def test_metrics_without_samples_are_none_and_not_zero() -> None:
    totals = ClassificationTotals(2, keep_samples=True)
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        metrics = totals.compute()
    assert metrics["acc"] is None
    assert metrics["loss"] is None


def test_one_half_is_class_one() -> None:
    confidence, prediction = predicted(torch.tensor([[0.5, 0.5], [0.6, 0.4]]))
    assert prediction.tolist() == [1, 0]
    assert confidence.tolist() == pytest.approx([0.5, 0.6])


@pytest.mark.parametrize("classes", [2, 4])
def test_metric_names_are_those_computed(classes: int) -> None:
    probabilities, labels = random_case(classes, 40, seed=0)
    assert set(metric_names(classes)) == set(totals_of(probabilities, labels).compute())


def test_the_loss_does_not_depend_on_the_order_of_the_batches() -> None:
    values = [1e16, 1.0, -1e16, 1.0]
    sums = []
    for order in (values, values[::-1], sorted(values)):
        totals = ClassificationTotals(2, keep_samples=False)
        for value in order:
            totals.add_loss(torch.tensor(value, dtype=torch.float64), 1)
        sums.append(totals.loss_sum)
    assert sums == [2.0, 2.0, 2.0]
