"""Check images with masks once, before training, and count what was found."""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datamodules.images.decoding import BadImageError
from datamodules.images.storing import report_conversions
from datamodules.images.threads import in_threads
from datamodules.masks.class_list import ClassList
from datamodules.masks.decoding import BadMaskError, PairDecoding
from datamodules.masks.rows import EncodedPair
from datamodules.masks.storage import SegmentationSplit
from datamodules.reading.errors import BadRow, check_count
from datamodules.reading.progress import tracked
from run_folders.errors import shortened

log = logging.getLogger(__name__)

_VALUES = 256  # of a mask


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
