"""Segmentation metrics equal those of scikit-learn on all pixels."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score

from lightning_modules.metrics.segmentation import (
    METRIC_NAMES,
    SegmentationTotals,
    per_class_metrics,
    segmentation_metrics,
)


def batches(
    classes: int = 6, seed: int = 0
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Predictions, labels and index; class 4 never occurs, class 5 only as a prediction."""
    rng = np.random.default_rng(seed)
    made = []
    for start in (0, 4, 8):
        count = 4 if start < 8 else 1
        labels = rng.integers(0, 4, (count, 9, 11)).astype(np.uint8)
        predictions = np.where(
            rng.random(labels.shape) < 0.7, labels, rng.choice([0, 1, 2, 3, 5], labels.shape)
        ).astype(np.uint8)
        labels[rng.random(labels.shape) < 0.2] = 255
        made.append(
            (
                torch.from_numpy(predictions),
                torch.from_numpy(labels),
                torch.arange(start, start + count),
            )
        )
    return made


def sizes_of(labels: torch.Tensor) -> torch.Tensor:
    return torch.tensor([labels.shape[1:]] * len(labels))


def added(
    parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], *, keep: bool = True
) -> SegmentationTotals:
    totals = SegmentationTotals(6, keep_samples=keep)
    for number, (predictions, labels, index) in enumerate(parts):
        totals.update(torch.tensor(float(number + 1)), predictions, labels, sizes_of(labels), index)
    return totals


def test_metrics_equal_scikit_learns() -> None:
    parts = batches()
    result = added(parts).result()
    predictions, labels = (torch.cat([part[i].flatten() for part in parts]).numpy() for i in (0, 1))
    known = labels != 255
    predictions, labels = predictions[known], labels[known]
    assert result.confusion == confusion_matrix(labels, predictions, labels=range(6)).tolist()
    present = [0, 1, 2, 3, 5]
    ious = jaccard_score(labels, predictions, labels=present, average=None)
    assert [c["iou"] for k, c in enumerate(result.classes) if k in present] == pytest.approx(
        ious.tolist()
    )
    shares = np.bincount(labels, minlength=6)[present] / len(labels)
    expected = {
        "miou": jaccard_score(labels, predictions, labels=present, average="macro"),
        "pixel_acc": accuracy_score(labels, predictions),
        "class_acc": np.mean(
            confusion_matrix(labels, predictions, labels=range(4), normalize=None).diagonal()
            / np.bincount(labels)
        ),
        "fw_iou": float((ious * shares).sum()),
    }
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected)
    assert (result.count, result.pixels, result.unlabelled) == (9, len(labels), int((~known).sum()))


def test_the_index_that_is_kept_is_a_copy() -> None:
    """A tensor from a worker process keeps a file open as long as it exists."""
    parts = batches()
    kept = added(parts).index
    assert all(
        ours.data_ptr() != part[2].data_ptr() for ours, part in zip(kept, parts, strict=True)
    )


def test_mean_class_accuracy_is_balanced_accuracy() -> None:
    labels, predictions = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 2])
    metrics = segmentation_metrics(confusion_matrix(labels, predictions).tolist())
    assert metrics["class_acc"] == pytest.approx(balanced_accuracy_score(labels, predictions))


def test_absent_classes_have_no_metrics_and_count_in_no_mean() -> None:
    classes = added(batches()).result().classes
    assert classes[4] == {"iou": None, "acc": None, "pixels": 0, "predicted_pixels": 0}
    assert classes[5]["iou"] == 0.0
    assert classes[5]["acc"] is None
    assert segmentation_metrics([[0, 0], [0, 0]]) == dict.fromkeys(
        ("miou", "pixel_acc", "class_acc", "fw_iou")
    )
    assert per_class_metrics([[3, 0], [0, 0]])[0]["iou"] == 1.0
    assert segmentation_metrics([[3, 0], [0, 0]])["miou"] == 1.0


def test_the_loss_is_weighted_by_labelled_pixels() -> None:
    parts = batches()
    pixels = [int((labels != 255).sum()) for _, labels, _ in parts]
    expected = sum((i + 1) * n for i, n in enumerate(pixels)) / sum(pixels)
    assert added(parts).result().metrics["loss"] == pytest.approx(expected)
    assert list(added(parts).result().metrics) == METRIC_NAMES


def test_metrics_do_not_depend_on_the_batches() -> None:
    whole = [torch.cat([part[i] for part in batches()]) for i in range(3)]
    one = SegmentationTotals(6, keep_samples=True)
    one.update(torch.tensor(1.0), whole[0], whole[1], sizes_of(whole[1]), whole[2])
    assert one.result().confusion == added(batches()).result().confusion


def test_each_image_has_its_own_metrics_in_order() -> None:
    parts = batches()
    parts[0][1][2] = 255  # an image without a label
    index, iou, accuracy = added(parts[::-1]).result().images  # type: ignore[misc]
    assert index.tolist() == list(range(9))
    predictions, labels = (torch.cat([part[i] for part in parts]).numpy() for i in (0, 1))
    for i in range(9):
        known = labels[i] != 255
        if i == 2:
            assert torch.isnan(iou[i])
            assert torch.isnan(accuracy[i])
            continue
        truth, guess = labels[i][known], predictions[i][known]
        present = sorted({*truth.tolist(), *guess.tolist()})
        assert float(iou[i]) == pytest.approx(
            jaccard_score(truth, guess, labels=present, average="macro")
        )
        assert float(accuracy[i]) == pytest.approx(accuracy_score(truth, guess))
    assert added(parts, keep=False).result().images is None


def test_padding_is_not_unlabelled() -> None:
    totals = SegmentationTotals(3, keep_samples=False)
    labels = torch.full((2, 10, 10), 255, dtype=torch.uint8)
    labels[0, :2, :2], labels[1, :4, :5] = 1, 2
    labels[1, 0, 0] = 255
    totals.update(
        torch.tensor(1.0),
        labels.clamp(max=2),
        labels,
        torch.tensor([[2, 2], [4, 5]]),
        torch.arange(2),
    )
    assert (totals.result().pixels, totals.result().unlabelled) == (4 + 19, 1)


def test_counts_are_exact_beyond_the_precision_of_floats() -> None:
    totals = SegmentationTotals(2, keep_samples=False)
    totals.confusion += torch.tensor([[2**60, 1], [0, 1]])
    assert totals.confusion.dtype == torch.int64
    assert totals.result().confusion == [[2**60, 1], [0, 1]]
    assert totals.result().pixels == 2**60 + 2
