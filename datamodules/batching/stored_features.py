"""Features that a frozen network gave, read in place of the samples: the same batches without the network's work."""

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

_VALUES, _LENGTHS = "values.bin", "lengths.bin"


class NotStorableError(ValueError):
    """Features of a split would not be the same in every epoch; the message is the reason."""


@dataclass(frozen=True)
class FeatureInput:
    """What of a split a network reads once.

    Attributes:
        views: In how many views training reads each sample.
        loader: Makes a loader of every sample once, in the batches of an evaluation.
        positions: Of the samples of each of these batches.
        lengths: [N] tokens of each sample; None where samples have none.
        sha256: Of all that the network reads: two splits with one digest give the same features.
        view: Batch and state -> the batch in that state; 0 is as it is.
    """

    loader: Callable[[], DataLoader[Any]]
    positions: Sequence[Sequence[int]]
    lengths: npt.NDArray[np.int64] | None
    sha256: str
    views: int = 1
    view: Callable[[Any, int], Any] = lambda batch, _: batch

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(map(len, self.positions))


@dataclass
class StoredFeatures:
    """The features of a split, each sample's in one state or several; usually mapped from a file.

    Attributes:
        values: [S * N, ...], state after state; of texts [tokens of all samples, C], end to end.
        views: S.
        lengths: [N] int64 tokens of each sample; None where features are of one shape.
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
        """Read samples.

        Args:
            positions: [B] int64.
            views: [B] int64 state of each, or one for all.

        Returns:
            Features [B, ...] of one shape and None; or padded token states [B, T, C], 0 behind
            their [B] lengths.
        """
        if self.lengths is None:
            return self.values.index_select(0, positions + len(self) * views), None
        rows, there = self._tokens(positions)
        taken = self.values.index_select(0, torch.where(there, rows, 0).flatten()).view(
            *rows.shape, -1
        )
        return taken.masked_fill_(~there[..., None], 0), self.lengths[positions]

    def put(self, positions: Tensor, state: int, values: Tensor) -> None:
        """Write samples; arguments as `take` gives them."""
        if self.lengths is None:
            self.values[positions + len(self) * state] = values
        else:
            rows, there = self._tokens(positions)
            self.values[rows[there]] = values[:, : rows.shape[1]][there]

    def _tokens(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Row of each token, [B, T], and whether there is such a token."""
        assert self.lengths is not None  # noqa: S101 - tells the type checker
        assert self.starts is not None  # noqa: S101 - tells the type checker
        lengths = self.lengths[positions]
        steps = torch.arange(int(lengths.max()))
        return self.starts[positions][:, None] + steps, steps < lengths[:, None]


@dataclass(frozen=True)
class Layout:
    """What a store's entry holds, and its files: `values.bin`, of texts `lengths.bin`.

    Attributes:
        dtype: Of the values.
        shape: Of one sample's features, or of one token's.
        samples: N.
        views: S, see `StoredFeatures`.
        lengths: [N] tokens of each sample; None where features are of one shape.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    samples: int
    views: int = 1
    lengths: npt.NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """Rows of the values."""
        return self.views * (self.samples if self.lengths is None else int(self.lengths.sum()))

    @property
    def bytes(self) -> int:
        """Size of the values."""
        return self.rows * int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def facts(self, stored: StoredFeatures | None = None) -> dict[str, Any]:
        """Plain values for entry.json; with the features, the checksum of their file too."""
        ragged = self.lengths is not None
        shape = list(self.shape)
        facts = {
            "dtype": str(self.dtype),
            "shape": shape,
            "samples": self.samples,
            "states": self.views,
            "ragged": ragged,
        }
        return (
            facts
            if stored is None
            else {**facts, "crc32": {_VALUES: zlib.crc32(as_bytes(stored.values))}}
        )

    def create(self, folder: Path) -> None:
        """Make an entry's files and take their room on the disk; raises `OSError` where there is none."""
        with (folder / _VALUES).open("wb") as file:
            file.truncate(self.bytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self.bytes)
            elif shutil.disk_usage(folder).free < self.bytes:  # macOS
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.lengths is not None:
            self.lengths.astype(np.int64).tofile(folder / _LENGTHS)

    def open(self, folder: Path, *, shared: bool = False) -> StoredFeatures:
        """Map an entry's files, to be read or, `shared`, to be written; raises `OSError` or `ValueError` for wrong sizes."""
        path = folder / _VALUES
        if path.stat().st_size != self.bytes:
            msg = f"{path.name} has {path.stat().st_size} bytes of {self.bytes}"
            raise ValueError(msg)
        size = self.bytes // self.dtype.itemsize
        values = torch.from_file(str(path), shared=shared, size=size, dtype=self.dtype).view(
            self.rows, *self.shape
        )
        if self.lengths is None:
            return StoredFeatures(values, self.views)
        lengths = torch.from_numpy(np.fromfile(folder / _LENGTHS, np.int64))
        if not np.array_equal(lengths.numpy(), self.lengths):
            msg = f"{_LENGTHS} is of other texts"
            raise ValueError(msg)
        return StoredFeatures(values, self.views, lengths)


class FeatureSplit(Dataset[FeatureBatch]):
    """A torch dataset of whole batches of stored features."""

    def __init__(
        self,
        stored: StoredFeatures,
        labels: Sequence[int],
        indices: Sequence[int],
        state_of: Callable[[int, Tensor], Tensor] | None = None,
    ) -> None:
        """Put features beside what is known of their samples.

        Args:
            stored: Features of N samples.
            labels: Of each, 0..K-1.
            indices: Row of each in the split's file.
            state_of: Epoch and [B] rows -> [B] state that each is read in; None where an epoch
                changes nothing.
        """
        self.stored, self.state_of = stored, state_of
        self.labels, self.indices = torch.as_tensor(labels), torch.as_tensor(indices)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, positions: Sequence[int] | Tensor, epoch: int | None = None) -> FeatureBatch:
        """Read a batch.

        Args:
            positions: Of its samples.
            epoch: From 0; None in evaluation.

        Returns:
            The batch. In evaluation the second state, where there is one, stands beside the first
            as `mirrored`.
        """
        where = torch.as_tensor(positions)
        index = self.indices[where]
        chosen: Tensor | int = (
            0 if epoch is None or self.state_of is None else self.state_of(epoch, index)
        )
        features, lengths = self.stored.take(where, chosen)
        batch = FeatureBatch(features=features, labels=self.labels[where], index=index)
        if lengths is not None:
            batch["lengths"] = lengths
        if epoch is None and self.stored.views > 1:
            batch["mirrored"] = self.stored.take(where, 1)[0]
        return batch

    def __getitems__(self, positions: Sequence[Any]) -> FeatureBatch:
        """A whole batch, as torch's loader asks for it; pairs are of epoch and position."""
        if not isinstance(positions[0], tuple):
            return self.batch(positions)
        epochs, places = zip(*positions, strict=True)
        return self.batch(places, epochs[0])


def digest_of_tensors(tensors: Iterable[Tensor], *facts: object) -> str:
    """SHA-256 over facts and the type, shape and bytes of tensors."""
    digest = hashlib.sha256(repr(facts).encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(as_bytes(tensor))
    return digest.hexdigest()


def as_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes, without a copy where it lies in memory as it is read."""
    raw: Any = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return memoryview(raw)
