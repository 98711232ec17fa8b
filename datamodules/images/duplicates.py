"""Equal images, found by the digests of their contents without a Python object per image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

DIGEST = 32  # bytes of a SHA-256
Digests = npt.NDArray[np.uint8]  # [N, 32]


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
