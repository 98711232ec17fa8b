"""The one way from a dataset and an order to a loader."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - whatever the dataset's batches are
    return batch


def batch_loader(
    dataset: Dataset[Any],
    batches: Iterable[Any],
    seed: int,
    num_workers: int,
    collate: Callable[[Any], Any] = _as_it_is,
) -> DataLoader[Any]:
    """Read batches.

    Args:
        dataset: Of samples, or of whole batches by `__getitems__`.
        batches: What each batch is asked for by.
        seed: The run's.
        num_workers: Processes that read; they live as long as the loader.
        collate: Puts samples together; whole batches are left as they are.

    Returns:
        The loader.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        # Its own: the global one would be drawn from at another moment in a resumed run.
        generator=torch.Generator().manual_seed(seed),
    )
