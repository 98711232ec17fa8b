"""Stored features of a frozen network, read in place of samples in the same batches."""

import errno
import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batches import FeatureBatch
from datamodules.batching.order import Positions

_VALUES, _LENGTHS = "values.bin", "lengths.bin"


class NotStorableError(ValueError):
    """The features of a split change from epoch to epoch; the message is the reason."""


@dataclass(frozen=True)
class FeatureInput:
    """Samples of a split from which features are computed once.

    Attributes:
        loader: Returns a loader of every sample once, in evaluation batches.
        positions: Positions of the samples in each of these batches.
        lengths: [N] number of tokens of each sample; None if samples have no tokens.
        sha256: Digest of all that the network reads; equal digests mean equal features.
        views: Number of views of each sample in training, for example 2 if images are mirrored.
        view: Called with a batch and the number of a view; returns that view of the batch. View 0
            is the unchanged batch.
    """

    loader: Callable[[], DataLoader[Any]]
    positions: Sequence[Positions]
    lengths: npt.NDArray[np.int64] | None
    sha256: str
    views: int = 1
    view: Callable[[Any, int], Any] = lambda batch, _: batch

    @property
    def samples(self) -> int:
        """Number of samples."""
        return sum(map(len, self.positions))


@dataclass
class StoredFeatures:
    """Features of a split, for one or more views of each sample; usually memory-mapped.

    Attributes:
        values: [V * N, ...], one view after the other. For token features [all tokens, C], one text
            after the other.
        views: Number of views V.
        lengths: [N] int64 number of tokens of each sample; None if all features have one shape.
        starts: [N] int64 row of the first token of each sample; None likewise.
    """

    values: Tensor
    views: int = 1
    lengths: Tensor | None = None
    starts: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        self.starts = None if self.lengths is None else self.lengths.cumsum(0) - self.lengths

    def __len__(self) -> int:
        return len(self.values) // self.views if self.lengths is None else len(self.lengths)

    def take(self, positions: Tensor, views: Tensor | int = 0) -> tuple[Tensor, Tensor | None]:
        """Read the features of samples.

        Args:
            positions: [B] int64 positions of the samples.
            views: [B] int64 view of each sample, or one view for all.

        Returns:
            Features [B, ...] of one shape, and None. Or token features [B, T, C], padded with 0,
            and their lengths [B].
        """
        if self.lengths is None:
            return self.values.index_select(0, positions + len(self) * views), None
        rows, exists = self._tokens(positions)
        taken = self.values.index_select(0, torch.where(exists, rows, 0).flatten()).view(
            *rows.shape, -1
        )
        return taken.masked_fill_(~exists[..., None], 0), self.lengths[positions]

    def put(self, positions: Tensor, view: int, values: Tensor) -> None:
        """Write the features of samples.

        Args:
            positions: [B] int64 positions of the samples.
            view: View of the samples.
            values: Features [B, ...], or padded token features [B, T, C].
        """
        if self.lengths is None:
            self.values[positions + len(self) * view] = values
        else:
            rows, exists = self._tokens(positions)
            self.values[rows[exists]] = values[:, : rows.shape[1]][exists]

    def _tokens(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the row of each token [B, T] int64, and whether the token exists [B, T] bool."""
        assert self.lengths is not None  # noqa: S101 - tells the type checker
        assert self.starts is not None  # noqa: S101 - tells the type checker
        lengths = self.lengths[positions]
        steps = torch.arange(int(lengths.max()))
        return self.starts[positions][:, None] + steps, steps < lengths[:, None]


@dataclass(frozen=True)
class Layout:
    """Shape and files of a cache entry: `values.bin`, and `lengths.bin` for token features.

    Attributes:
        dtype: Type of the values.
        shape: Shape of the features of one sample or of one token.
        samples: Number of samples N.
        views: Number of views V; see `StoredFeatures`.
        lengths: [N] number of tokens of each sample; None if all features have one shape.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    samples: int
    views: int = 1
    lengths: npt.NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """Number of rows of the values."""
        return self.views * (self.samples if self.lengths is None else int(self.lengths.sum()))

    @property
    def bytes(self) -> int:
        """Size of the values in bytes."""
        return self.rows * int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def facts(self, stored: StoredFeatures | None = None) -> dict[str, Any]:
        """Return JSON values for entry.json; with `stored`, also the checksum of the features."""
        ragged = self.lengths is not None
        shape = list(self.shape)
        facts = {
            "dtype": str(self.dtype),
            "shape": shape,
            "samples": self.samples,
            "views": self.views,
            "ragged": ragged,
        }
        return (
            facts
            if stored is None
            else {**facts, "crc32": {_VALUES: zlib.crc32(as_bytes(stored.values))}}
        )

    def create(self, folder: Path) -> None:
        """Create the files of an entry and reserve their disk space.

        Raises:
            OSError: If the disk has too little free space.
        """
        with (folder / _VALUES).open("wb") as file:
            file.truncate(self.bytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self.bytes)
            elif shutil.disk_usage(folder).free < self.bytes:  # macOS
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.lengths is not None:
            self.lengths.astype(np.int64).tofile(folder / _LENGTHS)

    def open(self, folder: Path, *, shared: bool = False) -> StoredFeatures:
        """Memory-map the files of an entry for reading, or also for writing if `shared`.

        Raises:
            OSError: If a file cannot be read.
            ValueError: If a file has a wrong size or the lengths of other texts.
        """
        path = folder / _VALUES
        if path.stat().st_size != self.bytes:
            msg = f"{path.name} has {path.stat().st_size} bytes instead of {self.bytes}"
            raise ValueError(msg)
        size = self.bytes // self.dtype.itemsize
        values = torch.from_file(str(path), shared=shared, size=size, dtype=self.dtype).view(
            self.rows, *self.shape
        )
        if self.lengths is None:
            return StoredFeatures(values, self.views)
        lengths = torch.from_numpy(np.fromfile(folder / _LENGTHS, np.int64))
        if not np.array_equal(lengths.numpy(), self.lengths):
            msg = f"{_LENGTHS} belongs to other texts"
            raise ValueError(msg)
        return StoredFeatures(values, self.views, lengths)


class FeatureSplit(Dataset[FeatureBatch]):
    """A torch dataset of whole batches of stored features."""

    def __init__(
        self,
        stored: StoredFeatures,
        labels: npt.ArrayLike,
        indices: npt.ArrayLike,
        view_of: Callable[[int, Tensor], Tensor] | None = None,
    ) -> None:
        """Combine features with labels and rows of their samples.

        Args:
            stored: Features of N samples.
            labels: Label of each sample; see `LabelReader`.
            indices: Row of each sample in the split's file, from 0.
            view_of: Called with the epoch and rows [B]; returns the view of each, [B] int64. None
                if all epochs read view 0.
        """
        self.stored, self.view_of = stored, view_of
        self.labels, self.indices = _as_batched(labels), _as_batched(indices)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, positions: Sequence[int] | Tensor, epoch: int | None = None) -> FeatureBatch:
        """Read a batch.

        Args:
            positions: Positions of its samples.
            epoch: Epoch, from 0; None in evaluation.

        Returns:
            The batch. In evaluation, `mirrored` has the second view if it is stored.
        """
        chosen = torch.as_tensor(positions)
        index = self.indices[chosen]
        views: Tensor | int = (
            0 if epoch is None or self.view_of is None else self.view_of(epoch, index)
        )
        features, lengths = self.stored.take(chosen, views)
        batch = FeatureBatch(features=features, labels=self.labels[chosen], index=index)
        if lengths is not None:
            batch["lengths"] = lengths
        if epoch is None and self.stored.views > 1:
            batch["mirrored"] = self.stored.take(chosen, 1)[0]
        return batch

    def __getitems__(self, positions: Sequence[Any]) -> FeatureBatch:
        """Return a whole batch for positions, or for pairs (epoch, position) in training."""
        if not isinstance(positions[0], tuple):
            return self.batch(positions)
        epochs, chosen = zip(*positions, strict=True)
        return self.batch(chosen, epochs[0])


def _as_batched(values: npt.ArrayLike) -> Tensor:
    """Return labels or indices in the type of a batch."""
    array = np.asarray(values)
    return torch.as_tensor(array.astype(np.float32) if array.dtype.kind == "f" else array)


def digest_of_tensors(tensors: Iterable[Tensor], *facts: object) -> str:
    """Return the SHA-256 over `facts` and the type, shape and bytes of tensors."""
    digest = hashlib.sha256(repr(facts).encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(as_bytes(tensor))
    return digest.hexdigest()


def as_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor; contiguous tensors on the CPU are not copied."""
    raw: Any = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return memoryview(raw)
