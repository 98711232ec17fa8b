"""Creation of all data loaders."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


def _identity(batch: Any) -> Any:  # noqa: ANN401 - whatever the dataset's batches are
    return batch


def batch_loader(
    dataset: Dataset[Any],
    batches: Iterable[Any],
    seed: int,
    num_workers: int,
    collate: Callable[[Any], Any] = _identity,
) -> DataLoader[Any]:
    """Return a loader of batches.

    Args:
        dataset: Dataset of samples, or of whole batches if it has `__getitems__`.
        batches: Batch sampler; it yields the positions of each batch.
        seed: Seed of the run.
        num_workers: Worker processes; they live as long as the loader.
        collate: Function that combines samples into a batch; the default returns whole batches
            unchanged.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        # The global generator would be in another state in a resumed run.
        generator=torch.Generator().manual_seed(seed),
    )
