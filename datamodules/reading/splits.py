"""Division of a split in two by position and seed, and search for samples in two splits."""

from collections.abc import Callable, Iterable, Mapping
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
