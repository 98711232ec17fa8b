"""From splits of images to batches: loaders, augmentation, and features in place of images."""

from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from datamodules.batches import ImageBatch
from datamodules.batching.loaders import batch_loader
from datamodules.batching.order import EpochBatches, EvaluationBatches, ShuffledBatches
from datamodules.batching.stored_features import FeatureInput, NotStorableError, digest_of_tensors
from datamodules.images.storage import ImageSplit
from datamodules.images.transforms import NO_AUGMENTATION, Augmentation, Augmenter
from datamodules.labelled import LabelledDataModule


class ImageBatches(LabelledDataModule[ImageSplit]):
    """Base of a datamodule of labelled images: all that follows once the splits are read.

    Attributes:
        augmentation: Random changes of training images.
        num_workers: Worker processes of a loader.
        augmenter: Makes these changes in the current epoch; None before the first batch.
    """

    augmentation: Augmentation
    num_workers: int
    augmenter: Augmenter | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training loader; its order depends on (seed, epoch)."""
        order = EpochBatches if "train" in self.stored else ShuffledBatches
        sampler = order(len(self.splits["train"]), self.batch_size, self.seed)
        sampler.start(self.start_epoch, repeats=self.repeats_batches)
        return self._loader("train", sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the val split."""
        return self._loader(
            "val", EvaluationBatches(range(len(self.splits["val"])), self.eval_batch_size)
        )

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the test split."""
        return self._loader(
            "test", EvaluationBatches(range(len(self.splits["test"])), self.eval_batch_size)
        )

    def _loader(self, split: str, sampler: ShuffledBatches | EvaluationBatches) -> DataLoader[Any]:
        images = self.splits[split]
        if split in self.stored:
            indices = images.indices.tolist()
            labels = images.encoded.labels
            return self.feature_loader(split, labels, indices, sampler, self._flipped)
        return batch_loader(images, sampler, self.seed, self.num_workers)

    def feature_input(self, split: str, *, augmented: bool = True) -> FeatureInput:
        """Return all images of a split; training images have two views if they are flipped.

        Args:
            split: Name of the split.
            augmented: Whether training images are flipped.

        Raises:
            NotStorableError: If training images are changed by more than flips.
        """
        flipped = {**NO_AUGMENTATION, "flip": self.augmentation["flip"]}
        changed = augmented and split == "train"
        if changed and self.augmentation != flipped:
            changes = ", ".join(
                f"{k}={v}"
                for k, v in self.augmentation.items()
                if k != "flip" and v != flipped.get(k)
            )
            msg = f"data.augmentation ({changes}) changes the images in every epoch"
            raise NotStorableError(msg)
        images = self.splits[split]
        batches = EvaluationBatches(range(len(images)), self.eval_batch_size).batches
        loader = partial(batch_loader, images, batches, self.seed, self.num_workers)
        views = 2 if changed and self.augmentation["flip"] else 1
        digest = digest_of_tensors([], "images", images.content_digest(), self.eval_batch_size)
        return FeatureInput(loader, batches, None, digest, views, _view_of)

    def _flipped(self, epoch: int, index: torch.Tensor) -> torch.Tensor:
        """Return [B] int64: 1 for images that are mirrored in this epoch, 0 for the others."""
        return (
            self._augmenter(epoch).flipped(index).long()
            if self.augmentation["flip"]
            else torch.zeros_like(index)
        )

    def _augmenter(self, epoch: int) -> Augmenter:
        if self.augmenter is None or self.augmenter.epoch != epoch:
            rows = int(self.splits["train"].indices.max()) + 1
            self.augmenter = Augmenter(self.augmentation, rows, self.seed, epoch)
        return self.augmenter

    def on_after_batch_transfer(self, batch: ImageBatch, dataloader_idx: int) -> ImageBatch:  # noqa: ARG002
        """Augment training images, on the device to which they were moved."""
        if (
            self.trainer is None
            or not self.trainer.training
            or self.augmentation == NO_AUGMENTATION
            or "features" in batch
        ):
            return batch
        changed = self._augmenter(self.trainer.current_epoch)(batch["pixel_values"], batch["index"])
        return ImageBatch(pixel_values=changed, labels=batch["labels"], index=batch["index"])

    def probe_batch(self) -> ImageBatch:
        """Return one training image, with label 0."""
        zero = torch.zeros(1, dtype=torch.int64)
        return ImageBatch(
            pixel_values=self.splits["train"].pixels(0)[None], labels=zero, index=zero
        )


def _view_of(batch: ImageBatch, view: int) -> ImageBatch:
    """Return the batch unchanged (view 0), or with mirrored images (view 1)."""
    pixels = batch["pixel_values"].flip(-1) if view else batch["pixel_values"]
    return ImageBatch(pixel_values=pixels, labels=batch["labels"], index=batch["index"])
