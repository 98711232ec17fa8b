"""Which samples make up which batch: orders that depend on (seed, epoch) only, shared out among processes."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch.utils.data import Sampler


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


class TrainingBatches(Sampler[list[int]]):
    """Base of the orders for training.

    Several processes share out each batch of the same list, so that a step rests on the same
    samples on any number of them.
    """

    def __init__(self, count: int, seed: int) -> None:
        """State how many batches an epoch has."""
        self.sampler = EpochGenerator(seed)  # Lightning looks here for set_epoch
        self.count = count
        self.sizes: list[int] = []

    @abstractmethod
    def batches(self) -> list[list[int]]:
        """All batches of this epoch, drawn from `sampler.generator()`."""

    def __iter__(self) -> Iterator[list[int]]:
        rank, world = process_rank()
        batches = self.batches()
        self.sizes = [len(batch) for batch in batches]
        return (batch[rank::world] or batch[:1] for batch in batches)

    def counted(self, position: int) -> bool:
        """Whether this process has a share of a batch; without one it repeats a sample, so that it keeps step."""
        return process_rank()[0] < self.sizes[position]

    def __len__(self) -> int:
        return self.count


class ShuffledBatches(TrainingBatches):
    """Every sample once an epoch, in random order.

    A last batch of a single sample joins the one before it: BatchNorm cannot take statistics of
    one.
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        lonely = samples % batch_size == 1 and samples > 1 and batch_size > 1
        super().__init__(math.ceil(samples / batch_size) - lonely, seed)
        self.samples, self.batch_size = samples, batch_size

    def batches(self) -> list[list[int]]:
        """All batches of this epoch."""
        order = self.sampler.generator().permutation(self.samples).tolist()
        cuts = [*(i * self.batch_size for i in range(self.count)), self.samples]
        return [order[start:end] for start, end in pairwise(cuts)]


class EpochBatches(ShuffledBatches):
    """The same batches as pairs (epoch, position), for samples that are changed by whoever reads them."""

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:  # type: ignore[override]
        epoch = self.sampler.epoch
        return ([(epoch, position) for position in batch] for batch in super().__iter__())


class EvaluationBatches(Sampler[list[int]]):
    """Every sample once, in a given order, in the same batches on any number of processes, which share them.

    All processes get equally many. Where there are too few, the last batch is repeated, and does
    not count.
    """

    def __init__(self, order: Sequence[int], batch_size: int) -> None:
        self.batches = [list(order[i : i + batch_size]) for i in range(0, len(order), batch_size)]

    def __iter__(self) -> Iterator[list[int]]:
        last = len(self.batches) - 1
        return (self.batches[min(self._place(i), last)] for i in range(len(self)))

    def counted(self, position: int) -> bool:
        """Whether a batch of this process is no repetition."""
        return self._place(position) < len(self.batches)

    def _place(self, position: int) -> int:
        rank, world = process_rank()
        return position * world + rank

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / process_rank()[1])
