"""Equal images, found by the digests of their contents without a Python object per image."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

DIGEST = 32  # bytes of a SHA-256
Digests = npt.NDArray[np.uint8]  # [N, 32]


def shared_digests(splits: Mapping[str, Digests]) -> dict[tuple[str, str], list[str]]:
    """Find images that occur in two splits.

    Args:
        splits: Split -> digests of its images.

    Returns:
        Pair of splits -> digests in hexadecimal that occur in both, in the order of the first
        split, for pairs that share any.
    """
    found = {}
    for a, b in combinations(splits, 2):
        ours = _values(splits[a])
        common = ours[np.isin(ours, _values(splits[b]))]
        if len(common):
            found[a, b] = list(dict.fromkeys(value.tobytes().hex() for value in common))
    return found


def with_two_labels(digests: Digests, labels: Sequence[Any]) -> list[tuple[int, int]]:
    """Return the positions of two equal images with different labels, one pair for each content.

    Args:
        digests: [N, 32] uint8.
        labels: Label of each image.
    """
    _, first, group = np.unique(_values(digests), return_index=True, return_inverse=True)
    earlier = first[group.ravel()]  # position of the first image with the same content
    found: dict[int, int] = {}
    for position in np.flatnonzero(earlier != np.arange(len(digests))).tolist():
        start = int(earlier[position])
        if labels[start] != labels[position]:
            found.setdefault(start, position)
    return sorted(found.items())


def _values(digests: Digests) -> npt.NDArray[np.void]:
    """Return [N] values of 32 bytes each."""
    return np.ascontiguousarray(digests).view(f"V{DIGEST}").ravel()
