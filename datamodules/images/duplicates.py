"""Equal images, found by the digests of their contents without a Python object per image."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

DIGEST = 32  # bytes of a SHA-256
Digests = npt.NDArray[np.uint8]  # [N, 32]


def report_two_labels(digests: Digests, labels: Sequence[Any], name: Callable[[int], str]) -> None:
    """Log a warning if equal training images have different labels.

    Args:
        digests: [N, 32] uint8.
        labels: Label of each image.
        name: Returns the name of the image at a position.
    """
    pairs = with_two_labels(digests, labels)
    if pairs:
        example = " = ".join(name(position) for position in pairs[0])
        count = "1 image has" if len(pairs) == 1 else f"{len(pairs)} images have"
        log.warning("%s more than one label in train, for example: %s", count, example)


def with_two_labels(digests: Digests, labels: Sequence[Any]) -> list[tuple[int, int]]:
    """Return the positions of two equal images with different labels, one pair for each content.

    Args:
        digests: [N, 32] uint8.
        labels: Label of each image.
    """
    values = np.ascontiguousarray(digests).view(f"V{DIGEST}").ravel()
    _, first, group = np.unique(values, return_index=True, return_inverse=True)
    earlier = first[group.ravel()]  # position of the first image with the same content
    found: dict[int, int] = {}
    for position in np.flatnonzero(earlier != np.arange(len(digests))).tolist():
        start = int(earlier[position])
        if labels[start] != labels[position]:
            found.setdefault(start, position)
    return sorted(found.items())
