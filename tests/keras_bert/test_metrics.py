"""Metrics have the names and values of those of the Lightning tasks."""

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="the extra keras is not installed")

from keras_bert.training.metrics import classification_record, stage_metrics
from lightning_modules.metrics.classification import ClassificationTotals


@pytest.mark.parametrize(("num_classes", "present"), [(2, 2), (3, 3), (4, 3)])
def test_metrics_equal_those_of_the_lightning_tasks(num_classes: int, present: int) -> None:
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, 2, 200)  # further classes are predicted but never right
    probabilities = rng.dirichlet(np.ones(num_classes), 200)
    probabilities[np.arange(100), labels[:100]] += 1
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    probabilities[:, present:] = 0  # a class that is not even predicted
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    probabilities[0] = 1 / num_classes
    loss = -np.log(probabilities[np.arange(200), labels]).mean()
    totals = ClassificationTotals(num_classes, keep_samples=True)
    totals.update(
        torch.tensor(loss), torch.tensor(probabilities), torch.tensor(labels), torch.arange(200)
    )
    theirs = totals.result()
    classes = [f"class {k}" for k in range(num_classes)]
    ours = classification_record(labels, probabilities, classes)
    assert set(stage_metrics(labels, probabilities)) == {"n", *theirs.metrics}
    for name, value in theirs.metrics.items():
        assert ours[name] == pytest.approx(value, abs=1e-5), name
    assert ours["confusion_matrix"] == theirs.confusion
    for name, row in zip(classes, theirs.classes, strict=True):
        assert ours["per_class"][name] == pytest.approx(row)
    assert len(ours["calibration"]) == len(theirs.calibration)
    for mine, row in zip(ours["calibration"], theirs.calibration, strict=True):
        assert mine == pytest.approx(row, abs=1e-6)


def test_ranking_metrics_of_one_class_are_none() -> None:
    metrics = stage_metrics(np.zeros(3, np.int64), np.array([[0.9, 0.1]] * 3))
    assert metrics["roc_auc"] is None
    assert metrics["average_precision"] is None
    assert metrics["acc"] == 1
