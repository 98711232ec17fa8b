"""Batch samplers whose order depends only on (seed, epoch), also with several processes."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

Positions = npt.NDArray[np.int64]  # [B] positions of a batch's samples in the split


class EpochGenerator:
    """Random generator that depends only on (seed, epoch), so a resumed run draws the same.

    Attributes:
        seed: Seed of the run.
        epoch: The current epoch.
        repeats: Whether every epoch has the generator of epoch 0.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0
        self.repeats = False

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def generator(self) -> np.random.Generator:
        """Return a new generator for this epoch."""
        return np.random.default_rng([self.seed, 0 if self.repeats else self.epoch])


def process_rank() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) without torch.distributed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class TrainingBatches(Sampler[list[int]]):
    """Base of the batch samplers for training.

    With several processes, each batch is divided among them. A training step therefore uses the
    same samples with any number of processes.
    """

    def __init__(self, count: int, seed: int) -> None:
        """Store the number of batches of an epoch and the seed."""
        self.sampler = EpochGenerator(seed)  # Lightning calls set_epoch of this attribute
        self.count = count
        self.sizes: list[int] = []

    def start(self, epoch: int, *, repeats: bool) -> None:
        """Set the first epoch, and whether every epoch has the batches of epoch 0."""
        self.sampler.set_epoch(epoch)
        self.sampler.repeats = repeats

    @abstractmethod
    def batches(self) -> list[Positions]:
        """Return all batches of this epoch, drawn from `sampler.generator()`."""

    def __iter__(self) -> Iterator[list[int]]:
        rank, world = process_rank()
        batches = self.batches()
        self.sizes = [len(batch) for batch in batches]
        return (batch[rank::world].tolist() or batch[:1].tolist() for batch in batches)

    def is_counted(self, position: int) -> bool:
        """Return whether this process has samples of its own in the batch at this position.

        Otherwise it repeats a sample, so that all processes make the same number of steps.
        """
        return process_rank()[0] < self.sizes[position]

    def __len__(self) -> int:
        return self.count


class ShuffledBatches(TrainingBatches):
    """Every sample once per epoch, in random order.

    If the last batch would have a single sample, the sample is added to the batch before it:
    BatchNorm needs more than one.
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        single = samples % batch_size == 1 and samples > 1 and batch_size > 1
        super().__init__(math.ceil(samples / batch_size) - single, seed)
        self.samples, self.batch_size = samples, batch_size

    def batches(self) -> list[Positions]:
        """Return all batches of this epoch."""
        order = self.sampler.generator().permutation(self.samples)
        cuts = [*(i * self.batch_size for i in range(self.count)), self.samples]
        return [order[start:end] for start, end in pairwise(cuts)]


class EpochBatches(ShuffledBatches):
    """The same batches as pairs (epoch, position), for samples that depend on the epoch."""

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:  # type: ignore[override]
        epoch = self.sampler.epoch
        return ([(epoch, position) for position in batch] for batch in super().__iter__())


class EvaluationBatches(Sampler[list[int]]):
    """Every sample once, in a given order, in the same batches with any number of processes.

    Several processes divide the batches among them. All get the same number of batches; where
    batches are missing, the last one is repeated but not counted.
    """

    def __init__(self, order: Sequence[int] | Positions, batch_size: int) -> None:
        positions: Positions = np.asarray(order, dtype=np.int64)
        self.batches = [positions[i : i + batch_size] for i in range(0, len(positions), batch_size)]

    def __iter__(self) -> Iterator[list[int]]:
        last = len(self.batches) - 1
        return (
            self.batches[min(self._global_position(i), last)].tolist() for i in range(len(self))
        )

    def is_counted(self, position: int) -> bool:
        """Return whether the batch at this position of this process is not a repetition."""
        return self._global_position(position) < len(self.batches)

    def _global_position(self, position: int) -> int:
        rank, world = process_rank()
        return position * world + rank

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / process_rank()[1])
