"""Multi-label metrics equal scikit-learn's to the last digit; thresholds and losses are checked."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from lightning_modules.losses import CrossEntropy
from lightning_modules.losses.errors import LossError
from lightning_modules.metrics.multilabel import MultilabelTotals, best_thresholds
from lightning_modules.multilabel import MultilabelImageClassifier

PIXELS = {"architecture": "small_resnet", "widths": [8, 8], "depth": 1}


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels; every third case has a label without positives, every fourth empty rows.

    Every second case has many equal scores.
    """
    rng = np.random.default_rng(seed)
    count, num_labels = int(rng.integers(1, 200)), int(rng.integers(2, 40))
    labels = (rng.random((count, num_labels)) < 0.6 * rng.random(num_labels)).astype(np.float32)
    scores = rng.random((count, num_labels)).astype(np.float32)
    if seed % 2:
        scores = np.round(scores, 1)
    if seed % 3 == 0:
        labels[:, 0] = 0
    if seed % 4 == 0:
        labels[: count // 2] = 0
    return scores, labels


def totals_of(
    scores: np.ndarray, labels: np.ndarray, *, keep_samples: bool = True
) -> MultilabelTotals:
    totals = MultilabelTotals(labels.shape[1], keep_samples=keep_samples)
    order = np.random.default_rng(1).permutation(len(labels))
    for start in range(0, len(labels), 7):
        chosen = order[start : start + 7]
        batch = (torch.tensor(values) for values in (scores[chosen], labels[chosen], chosen))
        totals.update(torch.tensor(0.25), *batch)
    return totals


def reference(labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray) -> dict[str, float]:
    truth, predictions = labels.astype(int), (scores >= thresholds).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scikit-learn's, of labels without positives
        return {
            "f1_micro": sk.f1_score(truth, predictions, average="micro", zero_division=0),
            "f1_macro": sk.f1_score(truth, predictions, average="macro", zero_division=0),
            "exact_match": sk.accuracy_score(truth, predictions),
            "hamming_loss": sk.hamming_loss(truth, predictions),
            "map": sk.average_precision_score(truth, scores, average="macro"),
        }


@pytest.mark.parametrize("seed", range(60))
def test_metrics_equal_scikit_learn_to_the_last_digit(seed: int) -> None:
    scores, labels = random_case(seed)
    thresholds = np.random.default_rng(seed).random(labels.shape[1]).astype(np.float32)
    totals = totals_of(scores, labels)
    totals.thresholds = torch.from_numpy(thresholds)
    found = totals.compute()
    assert found.pop("loss") == 0.25
    assert found == reference(labels, scores, thresholds)
    counted = totals_of(scores, labels, keep_samples=False).compute()
    expected = {**reference(labels, scores, np.float32(0.5)), "map": None, "loss": 0.25}
    assert counted == expected


def test_metrics_of_each_label() -> None:
    scores, labels = random_case(3)
    totals = totals_of(scores, labels)
    totals.thresholds = torch.full((labels.shape[1],), 0.5)
    result = totals.result()
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, scores >= 0.5, zero_division=0
    )
    for k, row in enumerate(result.labels):
        assert row["positives"] == support[k]
        found = [row[key] or 0.0 for key in ("precision", "recall", "f1")]
        assert found == [precision[k], recall[k], f1[k]]
    assert support[0] == 0
    assert (result.labels[0]["recall"], result.labels[0]["average_precision"]) == (None, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_has_a_higher_f1(seed: int) -> None:
    scores, labels = random_case(seed)
    chosen = totals_of(scores, labels).result().thresholds.numpy()
    for k, threshold in enumerate(chosen):
        if not labels[:, k].any():
            assert threshold == 0.5
            continue
        precision, recall, _ = sk.precision_recall_curve(labels[:, k], scores[:, k])
        best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        f1 = sk.f1_score(labels[:, k], scores[:, k] >= threshold, zero_division=0)
        assert f1 == pytest.approx(best, abs=1e-12)


def test_a_threshold_lies_between_two_scores_and_near_one_half() -> None:
    present = np.array([[True], [True], [False]])
    scores = np.array([[0.9], [0.8], [0.2]], np.float32)
    assert best_thresholds(scores, present)[0] == 0.5
    assert best_thresholds(scores / 2, present)[0] == pytest.approx(0.25)
    neighbours = np.array([[0.7], [np.nextafter(np.float32(0.7), 0)]], np.float32)
    threshold = best_thresholds(neighbours, np.array([[True], [False]]))[0]
    assert (neighbours[:, 0] >= threshold).tolist() == [True, False]


def test_a_checkpoint_has_the_thresholds() -> None:
    task = MultilabelImageClassifier(PIXELS, num_classes=3)
    assert task.state_dict()["thresholds"].tolist() == [0.5] * 3
    assert task.hparams["num_classes"] == 3


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (CrossEntropy(), "CrossEntropy is 0 for logits of 0 and samples without labels"),
        (nn.CrossEntropyLoss(), "set loss=binary_cross_entropy"),
        (nn.MultiLabelMarginLoss(), "MultiLabelMarginLoss fails for logits"),
        (nn.BCEWithLogitsLoss(reduction="none"), "a scalar mean is needed"),
    ],
)
def test_a_loss_that_does_not_suit_is_named(loss: nn.Module, message: str) -> None:
    with pytest.raises(LossError, match=message):
        MultilabelImageClassifier(PIXELS, num_classes=3, loss=loss)


def test_losses_that_suit() -> None:
    for loss in (nn.BCEWithLogitsLoss(), nn.MultiLabelSoftMarginLoss()):
        assert MultilabelImageClassifier(PIXELS, num_classes=3, loss=loss).loss is loss
