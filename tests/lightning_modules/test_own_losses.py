"""Losses that are not Thaw's: what they get, and which are rejected before training."""

import pytest
import torch
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional

from datamodules.batches import IGNORE_INDEX
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.losses import CrossEntropy, SegmentationLoss, UpsampledCrossEntropy
from lightning_modules.losses.errors import LossError
from lightning_modules.losses.upsampled_cross_entropy import upsampled_predictions
from lightning_modules.segmenter import Segmenter
from tests.lightning_modules.test_segmenter import CLASSES, NETWORKS, batch

PIXELS = {"architecture": "flat_pixels", "size": [4, 4]}


class Dice(SegmentationLoss):
    """One minus the mean overlap of soft predictions; reads logits at their own size."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = labels != IGNORE_INDEX
        classes = logits.shape[1]
        target = functional.one_hot(labels.long().clamp(max=classes - 1), classes)
        share = (target * known[..., None]).permute(0, 3, 1, 2).float()
        small = functional.interpolate(share, logits.shape[-2:], mode="area")
        overlap = (logits.softmax(1) * small).sum()
        return 1 - 2 * overlap / (small.sum() + logits.shape[0] * logits[0, 0].numel())


def test_a_segmentation_loss_reads_logits_at_their_own_size() -> None:
    task = Segmenter(NETWORKS["segformer"], CLASSES, loss=Dice()).train()
    found = batch()
    logits = task.network(found).logits
    loss = task.shared_step(found, None)
    assert torch.isfinite(loss)
    assert loss.requires_grad
    upsampled = functional.interpolate(
        logits, found["labels"].shape[-2:], mode="bilinear", align_corners=False
    )
    expected = upsampled.argmax(1).to(torch.uint8)
    _, predictions = Dice().with_predictions(logits, found["labels"])
    assert torch.equal(predictions, expected)
    assert torch.equal(upsampled_predictions(logits, found["labels"]), expected)


def test_two_classes_have_one_logit_only_for_a_loss_that_declares_it() -> None:
    assert ImageClassifier(PIXELS, 2).network.head.output.out_features == 1  # type: ignore[union-attr]
    foreign = ImageClassifier(PIXELS, 2, loss=nn.CrossEntropyLoss())
    assert foreign.network.head.output.out_features == 2  # type: ignore[union-attr]
    assert ImageClassifier(PIXELS, 3).network.head.output.out_features == 3  # type: ignore[union-attr]


def test_a_foreign_loss_gets_logits_and_labels() -> None:
    task = ImageClassifier(PIXELS, 3, loss=nn.MultiMarginLoss(margin=0.5)).eval()
    images = {
        "pixel_values": torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 2, 0, 1]),
        "index": torch.arange(5),
    }
    loss, probabilities = task.loss_and_predictions(images)
    logits = task.logits(images)
    expected = functional.multi_margin_loss(logits, images["labels"], margin=0.5)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(probabilities, logits.softmax(1))


class WithParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.weight * functional.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.BCEWithLogitsLoss(), r"fails for logits \[4, 3\] and labels \[4\]: .*; choose another"),
        (nn.CrossEntropyLoss(reduction="none"), r"returns \[4\] for .*; a scalar mean is needed"),
        (WithParameters(), "has parameters, which no optimizer trains"),
        (
            UpsampledCrossEntropy(),
            "is for segmentation; choose a loss for this task, such as CrossEntropy",
        ),
    ],
)
def test_a_loss_that_cannot_be_used_is_named(loss: nn.Module, message: str) -> None:
    with pytest.raises(LossError, match=message):
        ImageClassifier(PIXELS, 3, loss=loss)


@pytest.mark.parametrize("loss", [nn.MSELoss(), SoftTargetCrossEntropy()], ids=str)
def test_a_loss_that_needs_other_targets_is_rejected_for_two_classes(loss: nn.Module) -> None:
    with pytest.raises(LossError, match=r"fails for logits \[3, 2\] and labels \[3\]"):
        ImageClassifier(PIXELS, 2, loss=loss)


def test_a_segmentation_task_needs_a_segmentation_loss() -> None:
    with pytest.raises(LossError, match="is not a SegmentationLoss"):
        Segmenter(NETWORKS["segformer"], CLASSES, loss=CrossEntropy())
