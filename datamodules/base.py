"""What every datamodule has: seeded order, stratified splits, and the facts that a run records."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
import torch

from datamodules.errors import BadRow

SPLITS = ("train", "val", "test")


class EpochGenerator:
    """Random numbers that depend on (seed, epoch) and on nothing else, so that a resumed run draws the same."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def generator(self) -> np.random.Generator:
        """A fresh generator for this epoch."""
        return np.random.default_rng([self.seed, self.epoch])


def process_rank() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) without torch.distributed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def stratified_split(labels: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Take the same share of every class, by position and seed.

    Args:
        labels: One class a sample.
        fraction: Share of the second part, between 0 and 1. Each class with at least two samples gives at least one.
        seed: The same seed gives the same parts on every machine.

    Returns:
        Positions of the first and of the second part, ascending.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    array: npt.NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
    second: list[int] = []
    for label in np.unique(array):
        members = rng.permutation(np.flatnonzero(array == label))
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        second += members[:count].tolist()
    chosen = set(second)
    return [i for i in range(len(array)) if i not in chosen], sorted(chosen)


def fingerprint(rows: Iterable[Sequence[Any]]) -> str:
    """SHA-256 over rows of JSON scalars: two datasets with one fingerprint are the same."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(list(row), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


class TransferDataModule(lightning.LightningDataModule):
    """Base of all datamodules. `setup` may be called any number of times and prepares all splits once.

    Attributes:
        class_names: Name of class 0, 1, ...
        bad_rows: The rows that were left out.
        start_epoch: The epoch that training starts with. Lightning makes the first iterator before it tells the sampler
            the epoch, so a resumed run has to say it here.
    """

    start_epoch: int = 0

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read and prepare all splits, once; `stage` is Lightning's and plays no part."""

    class_names: list[str]
    bad_rows: list[BadRow]

    @property
    def num_classes(self) -> int:
        """Number of classes in the data."""
        return len(self.class_names)

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Facts for provenance.json: for each split its rows, fingerprint and rows left out."""

    @abstractmethod
    def reference(self, split: str, indices: Sequence[int]) -> tuple[str, list[str]]:
        """What a person recognises a sample by: a column's name (text, image) and a value for each index."""

    def faults_with(self, backbone: dict[str, Any]) -> list[str]:  # noqa: ARG002 - a base without a say
        """What in the data does not fit the backbone with this configuration, a line each."""
        return []
