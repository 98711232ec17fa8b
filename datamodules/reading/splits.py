"""Division of a split in two by position and seed, and search for samples in two splits."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt


def stratified_split(
    labels: npt.ArrayLike, fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Divide samples in two parts with the same fraction of every class.

    The second part has `fraction` of all samples, rounded to a whole number. It has at least one
    sample of each class that has two or more.

    Args:
        labels: Class of each sample.
        fraction: Fraction of the second part, between 0 and 1.
        seed: Seed; equal seeds return equal parts on every machine.

    Returns:
        Positions of the first and of the second part, ascending.
    """
    array: npt.NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
    names, sizes = np.unique(array, return_counts=True)
    most = np.maximum(sizes - 1, 0)
    wanted = sizes * fraction
    counts = np.minimum(np.maximum(np.floor(wanted), 1), most).astype(np.int64)
    # Samples lost by rounding down are added to the classes that lost most.
    for k in np.argsort(counts - wanted, kind="stable")[
        : max(0, round(len(array) * fraction) - int(counts.sum()))
    ]:
        counts[k] = min(counts[k] + 1, most[k])
    rng = np.random.Generator(np.random.PCG64(seed))
    second: list[int] = []
    for name, count in zip(names, counts, strict=True):
        second += rng.permutation(np.flatnonzero(array == name))[:count].tolist()
    chosen = set(second)
    return [i for i in range(len(array)) if i not in chosen], sorted(chosen)


_PASSES = 3  # over all groups


class Groups:
    """The group of each sample, from the values of a column."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._groups = array("q")

    def append(self, value: object) -> None:
        """Add the value of a sample; equal values are one group."""
        text = str(value).strip()
        self._groups.append(self._number.setdefault(text, len(self._number)))

    def take(self, positions: Sequence[int]) -> "Groups":
        """Return the groups of the samples at these positions; none if there are no groups."""
        taken = Groups()
        if self._groups:
            taken._groups = array("q", (self._groups[p] for p in positions))
        return taken

    def array(self) -> npt.NDArray[np.int64] | None:
        """Return the group of each sample, [N]; None if no value was added."""
        return np.array(self._groups, np.int64) if self._groups else None


def grouped_split(
    labels: npt.ArrayLike, groups: npt.ArrayLike, fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Divide samples in two parts, with all samples of a group in one of them.

    The groups are looked at in random order, three times. A group changes its part if the classes
    then have sizes that are closer to `fraction`. With two or more groups, each part has at least
    one.

    Args:
        labels: Class of each sample.
        groups: Group of each sample, 0, 1, ...
        fraction: Fraction of the second part, between 0 and 1.
        seed: Seed; equal seeds return equal parts on every machine.

    Returns:
        Positions of the first and of the second part, ascending.
    """
    numbers = np.asarray(groups).tolist()
    classes = np.unique(np.asarray(labels, np.int64), return_inverse=True)[1].tolist()
    sizes: dict[int, Counter[int]] = {}
    for group, label in zip(numbers, classes, strict=True):
        sizes.setdefault(group, Counter())[label] += 1
    missing = {label: count * fraction for label, count in Counter(classes).items()}
    order = np.random.Generator(np.random.PCG64(seed)).permutation(list(sizes)).tolist()

    def change(group: int, sign: int) -> float:
        """Return how much farther from `fraction` the classes are with a group, or without it."""
        return sum(
            abs(missing[label] - sign * size) - abs(missing[label])
            for label, size in sizes[group].items()
        )

    chosen: set[int] = set()
    for group in order * _PASSES:
        sign = -1 if group in chosen else 1
        if change(group, sign) < 0:
            chosen ^= {group}
            for label, size in sizes[group].items():
                missing[label] -= sign * size
    if not chosen and len(sizes) > 1:
        chosen.add(min(order, key=lambda group: change(group, 1)))
    if len(chosen) == len(sizes) > 1:
        chosen.discard(min(order, key=lambda group: change(group, -1)))
    first = [i for i, group in enumerate(numbers) if group not in chosen]
    second = [i for i, group in enumerate(numbers) if group in chosen]
    return first, second


def random_split(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide positions 0..count-1 in two parts at random.

    Args:
        count: Number of positions.
        fraction: Fraction of the second part, between 0 and 1. With two or more positions, each
            part has at least one.
        seed: Seed; equal seeds return equal parts on every machine.

    Returns:
        Positions of the first and of the second part, ascending.
    """
    size = min(max(1, round(count * fraction)), count - 1)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    return sorted(order[size:].tolist()), sorted(order[:size].tolist())


def shared_keys(
    keys: Mapping[str, Callable[[], Iterable[str]]],
) -> dict[tuple[str, str], list[str]]:
    """Find samples that occur in two splits.

    Args:
        keys: Split -> function that returns the keys of its samples; equal samples have equal keys.

    Returns:
        Pair of splits -> keys that occur in both, for pairs that share any.
    """
    hashes = {name: np.fromiter(map(hash, read()), np.int64) for name, read in keys.items()}
    shared: dict[tuple[str, str], list[str]] = {}
    for a, b in combinations(keys, 2):
        both = set(np.intersect1d(hashes[a], hashes[b]).tolist())
        if both:
            found = {key for key in keys[b]() if hash(key) in both}  # two texts may share a hash
            common = list(dict.fromkeys(key for key in keys[a]() if key in found))
            if common:
                shared[a, b] = common
    return shared
