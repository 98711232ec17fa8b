"""Segmentation metrics computed from pixel counts. `K` classes, `B` images of `H` x `W` pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.batches import IGNORE_INDEX
from lightning_modules.metrics.totals import StageResult, StageTotals


@dataclass(frozen=True)
class SegmentationResult(StageResult):
    """The result of a segmentation stage.

    Attributes:
        pixels: Number of labelled pixels, from which the metrics are computed.
        unlabelled: Number of unlabelled pixels.
        classes: IoU, accuracy, labelled and predicted pixels of each class; undefined metrics are
            None.
        confusion: [K][K] pixels; rows are labels, columns are predictions.
        images: Index [N], mean IoU [N] and pixel accuracy [N] of each image, ordered by index; None
            if they were not kept. The metrics of an image without a labelled pixel are NaN.
    """

    pixels: int
    unlabelled: int
    classes: list[dict[str, float | None]]
    confusion: list[list[int]]
    images: tuple[Tensor, Tensor, Tensor] | None


class SegmentationTotals(StageTotals):
    """The totals of one segmentation stage.

    Attributes:
        confusion: [K, K] int64 pixels; rows are labels, columns are predictions.
        unlabelled: Number of unlabelled pixels, int64, without the padding.
        samples: Number of images, int64.
        index: Index of each image, if samples are kept.
        iou: Mean IoU of each image, if samples are kept.
        accuracy: Pixel accuracy of each image, if samples are kept.
    """

    confusion: Tensor
    unlabelled: Tensor
    samples: Tensor
    index: list[Tensor] | Tensor
    iou: list[Tensor] | Tensor
    accuracy: list[Tensor] | Tensor

    def __init__(self, num_classes: int, *, keep_samples: bool) -> None:
        """Initialise all totals to zero.

        Args:
            num_classes: K.
            keep_samples: Whether to keep mean IoU and pixel accuracy of every image.
        """
        super().__init__()
        self.num_classes, self.keep_samples = num_classes, keep_samples
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), "sum")
        self.add_state("unlabelled", torch.zeros((), dtype=torch.int64), "sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), "sum")
        for name, dtype in (
            ("index", torch.int64),
            ("iou", torch.float32),
            ("accuracy", torch.float32),
        ):
            self.add_list(name, (), dtype)

    def update(
        self, loss: Tensor, predictions: Tensor, labels: Tensor, sizes: Tensor, index: Tensor
    ) -> None:
        """Add a batch.

        Args:
            loss: Mean over the labelled pixels.
            predictions: [B, H, W] uint8.
            labels: [B, H, W] uint8; pixels of 255 are unlabelled and enter no metric.
            sizes: [B, 2] height and width of each mask without its padding.
            index: [B] int64, rows of the samples in the data set.
        """
        k, count = self.num_classes, len(labels)
        # One `bincount` for all images: each image has a cell for each pair of classes, and one
        # for unlabelled pixels.
        cells = torch.where(labels == IGNORE_INDEX, k * k, labels.int() * k + predictions)
        cells += torch.arange(count, dtype=torch.int32, device=labels.device)[:, None, None] * (
            k * k + 1
        )
        confusion = (
            torch.bincount(cells.flatten(), minlength=count * (k * k + 1))
            .view(count, -1)[:, :-1]
            .view(count, k, k)
        )
        pixels = confusion.sum()
        self.confusion += confusion.sum(dim=0)
        self.unlabelled += sizes.prod(dim=1).sum() - pixels
        self.samples += len(labels)
        self.add_loss(loss, pixels)
        if self.keep_samples:
            hits = confusion.diagonal(dim1=1, dim2=2)
            union = confusion.sum(dim=1) + confusion.sum(dim=2) - hits
            present = union > 0
            # float32 whatever the precision of the network: it sets torch's default dtype.
            shares = hits.float() / union.clamp(min=1)
            iou = torch.where(present, shares, 0.0).sum(dim=1) / present.sum(dim=1)
            self.add_to_list("index", index)
            self.add_to_list("iou", iou)
            self.add_to_list("accuracy", hits.sum(dim=1).float() / confusion.sum(dim=(1, 2)))

    def result(self) -> SegmentationResult:
        """Return the metrics of `segmentation_metrics`, the loss and the records of the images."""
        confusion: list[list[int]] = self.confusion.tolist()
        pixels = sum(map(sum, confusion))
        metrics = segmentation_metrics(confusion)
        metrics["loss"] = self.loss_sum / pixels if pixels else None
        images = None
        if self.keep_samples and int(self.samples):
            sorted_images = self.sorted_by_index("iou", "accuracy")
            index, iou, accuracy = (values.cpu() for values in sorted_images)
            images = index, iou, accuracy
        return SegmentationResult(
            metrics,
            int(self.samples),
            pixels,
            int(self.unlabelled),
            per_class_metrics(confusion),
            confusion,
            images,
        )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def per_class_metrics(confusion: Sequence[Sequence[int]]) -> list[dict[str, float | None]]:
    """Return IoU, accuracy (recall), labelled and predicted pixels of each class.

    Args:
        confusion: [K][K] pixels; rows are labels, columns are predictions.

    Returns:
        One dict per class. The accuracy of a class without labelled pixels is None. Its IoU is
        None too, unless the class is predicted.
    """
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    metrics: list[dict[str, float | None]] = []
    for k, row in enumerate(confusion):
        labelled = sum(row)
        iou, accuracy = _ratio(row[k], labelled + predicted[k] - row[k]), _ratio(row[k], labelled)
        metrics.append(
            {"iou": iou, "acc": accuracy, "pixels": labelled, "predicted_pixels": predicted[k]}
        )
    return metrics


def segmentation_metrics(confusion: Sequence[Sequence[int]]) -> dict[str, float | None]:
    """Return the metrics over all classes.

    They are defined in Long, Shelhamer & Darrell 2015, arXiv 1411.4038, section 5.

    Args:
        confusion: [K][K] pixels; rows are labels, columns are predictions.

    Returns:
        `miou`, the mean IoU over the classes that occur as label or prediction; `pixel_acc`;
        `class_acc`, the mean accuracy over the classes that occur as label; `fw_iou`, the IoUs
        weighted by labelled pixels. All are None without a labelled pixel.
    """
    classes = per_class_metrics(confusion)
    pixels = sum(map(sum, confusion))
    ious = [c["iou"] for c in classes if c["iou"] is not None]
    accuracies = [c["acc"] for c in classes if c["acc"] is not None]
    return {
        "miou": _ratio(sum(ious), len(ious)),
        "pixel_acc": _ratio(sum(row[k] for k, row in enumerate(confusion)), pixels),
        "class_acc": _ratio(sum(accuracies), len(accuracies)),
        "fw_iou": _ratio(sum((c["iou"] or 0.0) * (c["pixels"] or 0) for c in classes), pixels),
    }


# The names of `SegmentationTotals.result`'s metrics.
METRIC_NAMES = [*segmentation_metrics([[0]]), "loss"]
