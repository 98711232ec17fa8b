"""Storage of images with masks: encoded, and decoded each time they are read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from datamodules.batches import IGNORE_INDEX, SegmentationBatch
from datamodules.images.decoding import BadImageError
from datamodules.masks.class_list import ClassList
from datamodules.masks.decoding import PairDecoding
from datamodules.masks.rows import EncodedPair
from datamodules.masks.transforms import Pixels, SegmentationAugmenter, resized_image, stretched
from datamodules.reading.errors import DataError


@dataclass(frozen=True)
class SegmentationSplit:
    """The usable images of a split with their masks.

    Attributes:
        pairs: Encoded images with encoded masks.
        digests: Digests of the image and of the mask of each pair.
        pixels: [N, K] int64 number of pixels of each class in each mask.
        class_list: Classes and the values of masks that represent them.
        decoding: Settings for decoding.
    """

    pairs: Sequence[EncodedPair]
    digests: Sequence[tuple[str, str]]
    pixels: npt.NDArray[np.int64]
    class_list: ClassList
    decoding: PairDecoding

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def classes(self) -> set[int]:
        """Classes that occur in the split."""
        return set(np.flatnonzero(self.pixels.sum(axis=0)).tolist())

    @property
    def indices(self) -> list[int]:
        """Row of each pair in the split's file, from 0."""
        return [pair.index for pair in self.pairs]

    def take(self, positions: Sequence[int]) -> Self:
        """Return a split with the pairs at these positions."""
        kept = (
            [self.pairs[p] for p in positions],
            [self.digests[p] for p in positions],
            self.pixels[list(positions)],
        )
        return type(self)(*kept, self.class_list, self.decoding)

    def rows(self) -> Iterable[Sequence[Any]]:
        """Yield the class list, then row and digests of each pair; the fingerprint covers them."""
        yield [self.class_list.as_plain()]
        for pair, digests in zip(self.pairs, self.digests, strict=True):
            yield pair.index, *digests

    def sample_keys(self) -> list[str]:
        """Return the digests of the images."""
        return [image for image, _ in self.digests]

    def name_of(self, key: str) -> str:
        """Return the name of the first image with this digest."""
        return self.pairs[self.sample_keys().index(key)].image.name

    def pair(self, position: int) -> tuple[Pixels, Pixels]:
        """Return image [H, W, 3] and mask of classes [H, W] at their original size, upright.

        Raises:
            DataError: If the image or the mask can no longer be read.
        """
        pair = self.pairs[position]
        try:
            image, values = self.decoding.decode(pair.image.source, pair.annotation)
            labels, fault = self.class_list.decode(values)
        except BadImageError as error:
            fault = str(error)
        if fault:
            msg = (
                f"{pair.image.name} or its mask: {fault}; "
                "fix or remove the file, then resume with ckpt_path=last"
            )
            raise DataError(msg)
        return image, labels


class TrainingPairs(Dataset[SegmentationBatch]):
    """Dataset of whole batches of augmented pairs.

    Its keys are pairs (epoch, position), because a worker process does not know the epoch.
    """

    def __init__(self, split: SegmentationSplit, augmenter: SegmentationAugmenter) -> None:
        self.split, self.augmenter = split, augmenter

    def __getitems__(self, drawn: Sequence[tuple[int, int]]) -> SegmentationBatch | DataError:
        """Return a whole batch, or the error.

        An exception raised in a worker would reach the user as a traceback.
        """
        rows = [self.split.pairs[position].index for _, position in drawn]
        try:
            pairs = [
                self.augmenter(*self.split.pair(position), epoch, row)
                for (epoch, position), row in zip(drawn, rows, strict=True)
            ]
        except DataError as error:
            return error
        return segmentation_batch(
            [image for image, _ in pairs], [labels for _, labels in pairs], rows
        )


class EvaluationPairs(Dataset[SegmentationBatch]):
    """Dataset of whole batches for evaluation."""

    def __init__(self, split: SegmentationSplit, size: int, *, native: bool) -> None:
        """Store the pairs and the sizes of the batches.

        Args:
            split: The pairs.
            size: Side of the images in pixels.
            native: Whether masks keep their original size; otherwise they get the images' size.
        """
        self.split, self.size, self.native = split, size, native

    def __getitems__(self, positions: Sequence[int]) -> SegmentationBatch | DataError:
        """Return a whole batch, or the error; see `TrainingPairs`."""
        try:
            pairs = [self._resized(*self.split.pair(position)) for position in positions]
        except DataError as error:
            return error
        rows = [self.split.pairs[position].index for position in positions]
        return segmentation_batch(
            [image for image, _ in pairs], [labels for _, labels in pairs], rows
        )

    def _resized(self, image: Pixels, labels: Pixels) -> tuple[Pixels, Pixels]:
        return (
            (resized_image(image, self.size), labels)
            if self.native
            else stretched(image, labels, self.size)
        )


def segmentation_batch(
    images: Sequence[Pixels], labels: Sequence[Pixels], rows: Sequence[int]
) -> SegmentationBatch:
    """Combine pairs into a batch; masks of different sizes are padded on the right and below."""
    height, width = (max(side) for side in zip(*(mask.shape for mask in labels), strict=True))
    padded = np.full((len(labels), height, width), IGNORE_INDEX, np.uint8)
    for target, mask in zip(padded, labels, strict=True):
        target[: mask.shape[0], : mask.shape[1]] = mask
    return SegmentationBatch(
        pixel_values=torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in images])),
        labels=torch.from_numpy(padded),
        sizes=torch.tensor([mask.shape for mask in labels]),
        index=torch.tensor(rows),
    )
