"""Samples that occur twice, found by numbers that stand for their contents."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datamodules.describing.split_facts import SplitFacts

Numbers = npt.NDArray[np.int64]


class Group(NamedTuple):
    """Samples of which each occurs twice.

    Attributes:
        samples: Their number.
        example: The places of one of them.
    """

    samples: int
    example: str


@dataclass
class Copies:
    """Samples that occur twice.

    Attributes:
        within: Split -> samples that repeat an earlier one of the split.
        between: Two splits -> samples that occur in both.
        two_labels: Samples with more than one label; None if there is none.
    """

    within: dict[str, Group] = field(default_factory=dict)
    between: dict[tuple[str, str], Group] = field(default_factory=dict)
    two_labels: Group | None = None


def find_copies(splits: Sequence[SplitFacts]) -> Copies:
    """Return the samples that occur twice in a split or in two splits."""
    found = Copies()
    for split in splits:
        first, later = _repetitions(np.asarray(split.keys, np.int64))
        if len(later):
            example = f"{split.place(int(first[0]))} = {split.place(int(later[0]))}"
            found.within[split.name] = Group(len(later), example)
    for a, b in combinations(splits, 2):
        _, in_a, in_b = np.intersect1d(a.keys, b.keys, return_indices=True)
        if len(in_a):
            place = int(in_a.argmin())
            example = f"{a.place(int(in_a[place]))} = {b.place(int(in_b[place]))}"
            found.between[a.name, b.name] = Group(len(in_a), example)
    found.two_labels = _two_labels(splits)
    return found


def _repetitions(keys: Numbers) -> tuple[Numbers, Numbers]:
    """Return the positions of keys that occurred before, and of their first occurrences."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    earlier = first[group.ravel()]
    later = np.flatnonzero(earlier != np.arange(len(keys)))
    return earlier[later], later


def _two_labels(splits: Sequence[SplitFacts]) -> Group | None:
    keys = np.concatenate([np.asarray(split.keys, np.int64) for split in splits])
    labels = np.concatenate([np.asarray(split.labels, np.int64) for split in splits])
    first, later = _repetitions(keys)
    differ = labels[first] != labels[later]
    if not differ.any():
        return None
    pair = (int(first[differ][0]), int(later[differ][0]))
    example = " and ".join(_place(splits, position) for position in pair)
    return Group(len(np.unique(first[differ])), example)


def _place(splits: Sequence[SplitFacts], position: int) -> str:
    """Return the name of the sample at a position among the samples of all splits."""
    for split in splits:
        if position < len(split.keys):
            return split.place(position)
        position -= len(split.keys)
    raise IndexError(position)
