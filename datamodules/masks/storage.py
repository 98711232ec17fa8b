"""Storage of images with masks: checked once before training, decoded each time they are read."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from datamodules.batches import IGNORE_INDEX, SegmentationBatch
from datamodules.images.decoding import BadImageError
from datamodules.images.storing import report_conversions
from datamodules.images.threads import in_threads
from datamodules.masks.class_list import ClassList
from datamodules.masks.decoding import BadMaskError, PairDecoding
from datamodules.masks.rows import EncodedPair
from datamodules.masks.transforms import Pixels, SegmentationAugmenter, resized_image, stretched
from datamodules.reading.errors import BadRow, DataError, check_count
from datamodules.reading.progress import tracked
from run_folders.errors import shortened

log = logging.getLogger(__name__)

_VALUES = 256  # of a mask


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


def check_pairs(
    pairs: Iterable[EncodedPair | BadRow], split: str, class_list: ClassList, decoding: PairDecoding
) -> tuple[SegmentationSplit, list[BadRow]]:
    """Check the pairs of a split: each image by its header, each mask by its values.

    Args:
        pairs: Pairs and bad rows as read.
        split: Split that bad rows name.
        class_list: Classes and the values of masks that represent them.
        decoding: Settings for decoding.

    Returns:
        The usable pairs, and the bad rows in order.
    """
    good: list[EncodedPair] = []
    digests: list[tuple[str, str]] = []
    counts: list[npt.NDArray[np.int64]] = []
    bad: list[BadRow] = []
    conversions, left_out = Counter[str](), np.zeros(_VALUES, np.int64)

    def check(entry: EncodedPair | BadRow) -> BadRow | _Checked:
        return (
            entry if isinstance(entry, BadRow) else _check_pair(entry, split, class_list, decoding)
        )

    listed = list(tracked(pairs, f"listing {split}", unit="pairs"))
    for entry, found in tracked(
        in_threads(check, listed), f"checking {split}", len(listed), "pairs"
    ):
        if isinstance(found, BadRow):
            bad.append(found)
        elif isinstance(entry, EncodedPair):
            good.append(entry)
            counts.append(found.classes)
            digests.append(found.digests)
            conversions.update(found.conversions)
            left_out += found.values * class_list.left_out()
    check_count(split, len(listed), len(good), len(bad))
    report_conversions(split, conversions)
    _report_values(split, left_out)
    pixels = np.stack(counts) if counts else np.zeros((0, len(class_list.names)), np.int64)
    return SegmentationSplit(good, digests, pixels, class_list, decoding), bad


class _Checked(NamedTuple):
    """What is known of a usable pair.

    Attributes:
        classes: [K] number of pixels of each class.
        values: [256] number of pixels of each value in the mask's file.
        conversions: How the image is converted.
        digests: Digests of the image and of the mask.
    """

    classes: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]
    conversions: tuple[str, ...]
    digests: tuple[str, str]


def _check_pair(
    pair: EncodedPair, split: str, class_list: ClassList, decoding: PairDecoding
) -> BadRow | _Checked:
    try:
        values, conversions = decoding.check(pair.image.source, pair.annotation)
    except BadMaskError as error:
        return pair.annotation_fault(split, str(error))
    except BadImageError as error:
        hint = "; data.convert=true converts it" if error.convertible else ""
        return pair.image.fault(split, f"{error}{hint}")
    labels, fault = class_list.decode(values)
    if fault:
        return pair.annotation_fault(split, fault)
    classes, found = (np.bincount(part.ravel(), minlength=_VALUES) for part in (labels, values))
    return _Checked(classes[: len(class_list.names)], found, conversions, pair.digests())


def _report_values(split: str, left_out: npt.NDArray[np.int64]) -> None:
    """Log how many pixels have a value [256] that `data.label_map` leaves out."""
    if left_out.any():
        values = shortened(str(value) for value in np.flatnonzero(left_out))
        log.info(
            "%s: %s pixels have a value that data.label_map does not name, and count as unlabelled "
            "(%s)", split, f"{left_out.sum():,}", values,
        )  # fmt: skip
