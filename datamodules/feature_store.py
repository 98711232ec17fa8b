"""A folder of stored features, shared by all runs of a machine: an entry is whole or not there.

Each entry is a folder that is named by its key: `values.bin`, of texts `lengths.bin`, and `entry.json` with what they hold and
their checksums. It is written under another name and renamed. Whoever reads an entry holds a shared lock on its `entry.json`.
"""

import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from datamodules.errors import DataError
from datamodules.feature_room import ENTRY, LOCK, PARTIAL, VALUES, StoreError, gigabytes, make_room
from datamodules.file_locks import hold, locked
from datamodules.stored_features import StoredFeatures, as_bytes

log = logging.getLogger(__name__)

_LENGTHS, _ROOM = "lengths.bin", "room"


@dataclass(frozen=True)
class Layout:
    """What an entry holds.

    Attributes:
        dtype: Of the values.
        shape: Of one sample's features, or of one token's.
        samples: N.
        states: S, see `StoredFeatures`.
        lengths: [N] tokens of each sample; None where features are of one shape.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    samples: int
    states: int = 1
    lengths: npt.NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """Rows of the values."""
        return self.states * (self.samples if self.lengths is None else int(self.lengths.sum()))

    @property
    def bytes(self) -> int:
        """Size of the values."""
        return self.rows * int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def facts(self) -> dict[str, Any]:
        """Plain values for entry.json."""
        ragged = self.lengths is not None
        shape = list(self.shape)
        return {"dtype": str(self.dtype), "shape": shape, "samples": self.samples, "states": self.states, "ragged": ragged}


class FeatureStore:
    """Finds entries, has them written once, and keeps the folder below its limit."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def __contains__(self, key: str) -> bool:
        """Whether there is such an entry; it may yet turn out to be damaged. Raises `StoreError` where nobody may look."""
        try:
            return (self.folder / key / ENTRY).is_file()
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(f"{self.folder} cannot be used ({error}); set cache.dir to a folder that can be written")

    def get(self, key: str, layout: Layout, compute: Callable[[StoredFeatures], None]) -> tuple[StoredFeatures, bool]:
        """Open an entry, or have it computed while other processes that want it wait.

        Args:
            key: Of all that the features depend on.
            layout: What the entry holds.
            compute: Fills what it is given.

        Returns:
            The features, and whether they had been there.

        Raises:
            StoreError: If they do not fit, or the folder cannot be used.
        """
        faults: list[OSError] = []

        def computing(stored: StoredFeatures) -> None:
            try:
                compute(stored)
            except OSError as error:  # of what is read, not of this folder
                faults.append(error)
                raise

        try:
            return self._get(key, layout, computing)
        except OSError as error:
            if error in faults:
                raise
            raise self._unusable(error) from error

    def _get(self, key: str, layout: Layout, compute: Callable[[StoredFeatures], None]) -> tuple[StoredFeatures, bool]:
        found = self._open(key, layout, tell=False)
        if found is not None:
            return found, True
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f"{key}{LOCK}", f"waiting for another run that computes the same features ({key})"):
            found = self._open(key, layout)
            if found is not None:
                return found, True
            partial = self.folder / f"{key}{PARTIAL}"
            try:
                self._reserve(partial, layout)
                self._write(partial, layout, compute)
                shutil.rmtree(self.folder / key, ignore_errors=True)  # a damaged one
                partial.rename(self.folder / key)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            written = self._open(key, layout)
        if written is None:
            msg = f"{self.folder / key}: what was just written cannot be read; is the disk sound?"
            raise DataError(msg)
        return written, False

    def _open(self, key: str, layout: Layout, *, tell: bool = True) -> StoredFeatures | None:
        """Open an entry that is whole, and tell of one that is not."""
        folder = self.folder / key
        held = hold(folder / ENTRY)
        if held is None:
            return None
        try:
            facts = json.load(held)
            stored = _mapped(folder, layout)
            sums = _checksums(stored)
        except (OSError, ValueError, RuntimeError) as error:
            facts, sums, fault = {}, {}, " ".join(str(error).split())[:200]
        else:
            fault = "" if facts == {**layout.facts(), "crc32": sums} else "its checksum or its description is another"
        if fault:
            if tell:
                log.warning("stored features %s are damaged (%s); they are computed anew", folder, fault)
            held.close()
            return None
        with suppress(OSError):  # a folder of somebody else
            os.utime(folder / ENTRY)  # what was used last goes last
        stored.held = held
        return stored

    def _write(self, partial: Path, layout: Layout, compute: Callable[[StoredFeatures], None]) -> None:
        stored = _mapped(partial, layout, shared=True)
        compute(stored)
        facts = {**layout.facts(), "crc32": _checksums(stored)}
        del stored
        (partial / ENTRY).write_text(json.dumps(facts), encoding="utf-8")
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def _reserve(self, partial: Path, layout: Layout) -> None:
        """Make room, and take it on the disk: writing into a mapped file on a full disk would kill the process."""
        with locked(self.folder / f"{_ROOM}{LOCK}"):
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            make_room(self.folder, layout.bytes, self.max_bytes)
            partial.mkdir()
            with (partial / VALUES).open("wb") as file:
                try:
                    file.truncate(layout.bytes)
                    if hasattr(os, "posix_fallocate"):  # not on macOS
                        os.posix_fallocate(file.fileno(), 0, layout.bytes)
                except OSError as error:
                    msg = f"the features take {gigabytes(layout.bytes)}, and {self.folder} has no room for them ({error})"
                    raise StoreError(msg) from error
            if layout.lengths is not None:
                layout.lengths.astype(np.int64).tofile(partial / _LENGTHS)


def _mapped(folder: Path, layout: Layout, *, shared: bool = False) -> StoredFeatures:
    """Map an entry's files, to be read or, `shared`, to be written; raises `OSError` or `ValueError` for wrong sizes."""
    path = folder / VALUES
    if path.stat().st_size != layout.bytes:
        msg = f"{path.name} has {path.stat().st_size} bytes of {layout.bytes}"
        raise ValueError(msg)
    size = layout.bytes // layout.dtype.itemsize
    values = torch.from_file(str(path), shared=shared, size=size, dtype=layout.dtype).view(layout.rows, *layout.shape)
    if layout.lengths is None:
        return StoredFeatures(values, layout.states)
    lengths = torch.from_numpy(np.fromfile(folder / _LENGTHS, np.int64))
    if not np.array_equal(lengths.numpy(), layout.lengths):
        msg = f"{_LENGTHS} is of other texts"
        raise ValueError(msg)
    return StoredFeatures(values, layout.states, lengths)


def _checksums(stored: StoredFeatures) -> dict[str, int]:
    """What tells whether the files are those that were written."""
    return {VALUES: zlib.crc32(as_bytes(stored.values))}
