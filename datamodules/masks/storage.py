"""EncodedPairs of a split, decoded whenever they are read: checked once, before anything is trained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from datamodules.batches import IGNORE_INDEX, SegmentationBatch
from datamodules.images.decoding import BadImageError, check_image, decode_image, decode_mask
from datamodules.images.storage import in_threads
from datamodules.masks.class_list import ClassList
from datamodules.masks.rows import EncodedPair
from datamodules.masks.transforms import Pixels, SegmentationAugmenter, resized_image, stretched
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.splits import random_split


@dataclass(frozen=True)
class SegmentationSplit:
    """The usable pairs of a split.

    Attributes:
        pairs: Encoded.
        digests: Of image and mask of each.
        pixels: [N, K] int64, pixels of each class.
        class_list: What the values of masks mean.
        max_pixels: Width times height that is still decoded.
    """

    pairs: Sequence[EncodedPair]
    digests: Sequence[tuple[str, str]]
    pixels: npt.NDArray[np.int64]
    class_list: ClassList
    max_pixels: int

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def classes(self) -> set[int]:
        """The classes that occur."""
        return set(np.flatnonzero(self.pixels.sum(axis=0)).tolist())

    @property
    def indices(self) -> list[int]:
        """Row in the split's file of each."""
        return [pair.index for pair in self.pairs]

    def divided(self, fraction: float, seed: int) -> tuple[list[int], list[int]]:
        """Positions of two parts, by index and seed alone."""
        return random_split(len(self), fraction, seed)

    def take(self, positions: Sequence[int]) -> Self:
        """The pairs at these positions."""
        kept = (
            [self.pairs[p] for p in positions],
            [self.digests[p] for p in positions],
            self.pixels[list(positions)],
        )
        return type(self)(*kept, self.class_list, self.max_pixels)

    def rows(self) -> Iterable[Sequence[Any]]:
        """The class list, which says what masks mean; row and digests of each: what tells two datasets apart."""
        yield [self.class_list.as_plain()]
        for pair, digests in zip(self.pairs, self.digests, strict=True):
            yield pair.index, *digests

    def contents(self) -> list[str]:
        """The images' digests."""
        return [image for image, _ in self.digests]

    def name_of(self, content: str) -> str:
        """The name of the first image with this digest."""
        return self.pairs[self.contents().index(content)].image.name

    def pair(self, position: int) -> tuple[Pixels, Pixels]:
        """Image [H, W, 3] and classes [H, W] as they are stored.

        Raises:
            DataError: If it can no longer be read.
        """
        pair = self.pairs[position]
        try:
            image = decode_image(pair.image.source, self.max_pixels, upright=False)
            labels, fault = self.class_list.decode(decode_mask(pair.annotation, self.max_pixels))
        except BadImageError as error:
            fault = str(error)
        if fault:
            msg = f"{pair.image.name} or its mask: {fault}; mend the file or take it away, then go on with ckpt_path=last"
            raise DataError(msg)
        return image, labels


class TrainingPairs(Dataset[SegmentationBatch]):
    """Whole batches of changed pairs; asked for by (epoch, position), so that a worker need not be told the epoch."""

    def __init__(self, split: SegmentationSplit, augmenter: SegmentationAugmenter) -> None:
        self.split, self.augmenter = split, augmenter

    def __getitems__(self, drawn: Sequence[tuple[int, int]]) -> SegmentationBatch | DataError:
        """A whole batch; a fault is handed over, for a worker's exception would reach the user as its traceback."""
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
    """Whole batches of pairs as they are measured."""

    def __init__(self, split: SegmentationSplit, size: int, *, native: bool) -> None:
        """State how pairs are brought to a size.

        Args:
            split: The pairs.
            size: Side of the images in pixels.
            native: Whether masks keep their own size instead of the images'.
        """
        self.split, self.size, self.native = split, size, native

    def __getitems__(self, positions: Sequence[int]) -> SegmentationBatch | DataError:
        """A whole batch; see `TrainingPairs`."""
        try:
            pairs = [self._measured(*self.split.pair(position)) for position in positions]
        except DataError as error:
            return error
        rows = [self.split.pairs[position].index for position in positions]
        return segmentation_batch(
            [image for image, _ in pairs], [labels for _, labels in pairs], rows
        )

    def _measured(self, image: Pixels, labels: Pixels) -> tuple[Pixels, Pixels]:
        return (
            (resized_image(image, self.size), labels)
            if self.native
            else stretched(image, labels, self.size)
        )


def segmentation_batch(
    images: Sequence[Pixels], labels: Sequence[Pixels], rows: Sequence[int]
) -> SegmentationBatch:
    """Put pairs together; masks of different sizes are padded on the right and below."""
    height, width = (max(side) for side in zip(*(one.shape for one in labels), strict=True))
    padded = np.full((len(labels), height, width), IGNORE_INDEX, np.uint8)
    for place, one in zip(padded, labels, strict=True):
        place[: one.shape[0], : one.shape[1]] = one
    return SegmentationBatch(
        pixel_values=torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in images])),
        labels=torch.from_numpy(padded),
        sizes=torch.tensor([one.shape for one in labels]),
        index=torch.tensor(rows),
    )


def check_pairs(
    pairs: Iterable[EncodedPair | BadRow], split: str, class_list: ClassList, max_pixels: int
) -> tuple[SegmentationSplit, list[BadRow]]:
    """Check the pairs of a split: each image by its header, each mask by its values.

    Args:
        pairs: As read.
        split: Named in bad rows.
        class_list: What the values mean.
        max_pixels: Width times height that is still decoded.

    Returns:
        The usable pairs, and the bad rows in order.
    """
    good: list[EncodedPair] = []
    digests: list[tuple[str, str]] = []
    pixels: list[npt.NDArray[np.int64]] = []
    bad: list[BadRow] = []

    def look(entry: EncodedPair | BadRow) -> BadRow | tuple[npt.NDArray[np.int64], tuple[str, str]]:
        if isinstance(entry, BadRow):
            return entry
        found = _looked_at(entry, split, class_list, max_pixels)
        return found if isinstance(found, BadRow) else (found, entry.digests())

    for entry, found in in_threads(look, list(pairs)):
        if isinstance(found, BadRow):
            bad.append(found)
        elif isinstance(entry, EncodedPair):
            good.append(entry)
            pixels.append(found[0])
            digests.append(found[1])
    counts = np.stack(pixels) if pixels else np.zeros((0, len(class_list.names)), np.int64)
    return SegmentationSplit(good, digests, counts, class_list, max_pixels), bad


def _looked_at(
    pair: EncodedPair, split: str, class_list: ClassList, max_pixels: int
) -> BadRow | npt.NDArray[np.int64]:
    """Pixels of each class [K], or what is wrong."""
    try:
        height, width = check_image(pair.image.source, max_pixels)
    except BadImageError as error:
        return pair.image.fault(split, str(error))
    try:
        values = decode_mask(pair.annotation, max_pixels)
    except BadImageError as error:
        return pair.annotation_fault(split, str(error))
    if values.shape != (height, width):
        reason = (
            f"is {values.shape[1]} x {values.shape[0]} pixels, and its image is {width} x {height}"
        )
        return pair.annotation_fault(split, reason)
    labels, fault = class_list.decode(values)
    if fault:
        return pair.annotation_fault(split, fault)
    return np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[: len(class_list.names)].astype(
        np.int64
    )
