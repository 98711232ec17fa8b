"""A folder of stored features, shared by all runs of a machine.

Each entry is a folder with its key as its name. It contains the files of a `Layout`, and
`entry.json` with their description and a checksum.

The process that has the lock of a key writes the entry under another name and renames it. So an
entry is either complete or absent. Readers need no lock.

The module does not import torch, so that `scripts/cache.py` starts fast.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from datamodules.reading.errors import DataError
from engine.command_line.shell import short_name
from run_folders.errors import brief
from run_folders.untrusted import read_json

if TYPE_CHECKING:
    from datamodules.batching.stored_features import Layout, StoredFeatures

log = logging.getLogger(__name__)

# ENTRY: the description inside an entry. _LOCK: suffix of the lock file of a key that is being
# computed. PARTIAL: suffix of an entry that is being written.
ENTRY, _LOCK, PARTIAL = "entry.json", ".lock", ".partial"


class StoreError(DataError):
    """Features cannot be stored: they exceed the limit or the disk, or the folder is not usable."""


class FeatureStore:
    """Opens entries, or computes and writes them once; keeps the folder below a limit.

    Attributes:
        folder: The folder of the entries.
        max_bytes: The limit of the folder's size in bytes.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"{self.folder} cannot be used ({error}); set cache.dir to a writable folder"
            raise StoreError(msg) from error

    def __contains__(self, key: str) -> bool:
        """Return whether the entry exists; it may still be damaged.

        Raises:
            StoreError: If the folder cannot be read.
        """
        with self._usable():
            return (self.folder / key / ENTRY).is_file()

    def check_limit(self, needed: Mapping[str, int]) -> None:
        """Check that new entries fit below the folder's limit; existing entries always do.

        Parts of the same entries that another process has written do not count, so that all
        processes of a run decide the same.

        Args:
            needed: Key -> size in bytes.

        Raises:
            StoreError: If the entries would exceed the limit.
        """
        if all(key in self for key in needed):
            return
        used = sum(
            entry_size(path)
            for path in entries(self.folder)
            if path.name.removesuffix(PARTIAL) not in needed
        )
        if used + sum(needed.values()) > self.max_bytes:
            reason = (
                f"{self.folder} holds {format_bytes(used)} of the {format_bytes(self.max_bytes)} "
                "that cache.max_gb allows"
            )
            raise self._no_space(sum(needed.values()), f"{reason}; raise cache.max_gb")

    def _no_space(self, needed: int, reason: str) -> StoreError:
        advice = f"free space ({short_name('cache')} list|clear --dir {self.folder})"
        return StoreError(f"the features take {format_bytes(needed)}, and {reason}, or {advice}")

    def get(
        self, key: str, layout: "Layout", compute: "Callable[[StoredFeatures], None]"
    ) -> "tuple[StoredFeatures, bool]":
        """Open an entry, or compute it; see `get_all`."""
        found, existed = self.get_all({key: layout}, lambda new: compute(new[key]))
        return found[key], existed

    def get_all(
        self,
        layouts: "Mapping[str, Layout]",
        compute: "Callable[[Mapping[str, StoredFeatures]], None]",
    ) -> "tuple[dict[str, StoredFeatures], bool]":
        """Open entries, or compute the missing ones while other processes that need them wait.

        Args:
            layouts: The digest of everything that the features of an entry depend on -> its format.
            compute: A function that fills the features of the missing entries in place, by key.

        Returns:
            Key -> the features, and whether all entries existed.

        Raises:
            StoreError: If the features exceed the limit or the disk, or the folder is not usable.
        """
        found = self._open_all(layouts, warn=False)
        if len(found) == len(layouts):
            return found, True
        with ExitStack() as locks:
            for key in sorted(layouts.keys() - found.keys()):  # all processes in the same order
                locks.enter_context(self._locked(key))
            found |= self._open_all({k: layouts[k] for k in layouts.keys() - found.keys()})
            missing = {key: layout for key, layout in layouts.items() if key not in found}
            if missing:
                found |= self._compute(missing, compute)
        return found, not missing

    def _open_all(
        self, layouts: "Mapping[str, Layout]", *, warn: bool = True
    ) -> "dict[str, StoredFeatures]":
        """Return the entries that exist and are not damaged."""
        opened = {key: self._open(key, layout, warn=warn) for key, layout in layouts.items()}
        return {key: stored for key, stored in opened.items() if stored is not None}

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the lock of an entry; wait for another process that holds it."""
        path = self.folder / f"{key}{_LOCK}"
        lock = FileLock(path)
        with self._usable():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                log.info("waiting for another run that computes the same features (%s)", key)
                lock.acquire()
        try:
            yield
        finally:
            # Remove the file before the release: waiting processes notice it and lock a new file.
            path.unlink(missing_ok=True)
            lock.release()

    def _compute(
        self,
        layouts: "Mapping[str, Layout]",
        compute: "Callable[[Mapping[str, StoredFeatures]], None]",
    ) -> "dict[str, StoredFeatures]":
        """Compute and write entries; the caller has their locks."""
        partials = {key: self.folder / f"{key}{PARTIAL}" for key in layouts}
        for key, partial in partials.items():
            for invalid in (self.folder / key, partial):  # damaged, and that of a killed process
                shutil.rmtree(invalid, ignore_errors=True)
        self.check_limit({key: layout.bytes for key, layout in layouts.items()})
        try:
            stored = {}
            for key, layout in layouts.items():
                with self._usable():
                    partials[key].mkdir()
                    self._reserve(partials[key], layout)
                    stored[key] = layout.open(partials[key], shared=True)
            compute(stored)
            facts = {key: layout.facts(stored[key]) for key, layout in layouts.items()}
            del stored
            return {key: self._finish(key, layouts[key], facts[key]) for key in layouts}
        finally:
            for partial in partials.values():
                shutil.rmtree(partial, ignore_errors=True)

    def _finish(self, key: str, layout: "Layout", facts: Mapping[str, object]) -> "StoredFeatures":
        """Write the description of a computed entry, give it its name, and open it."""
        folder, partial = self.folder / key, self.folder / f"{key}{PARTIAL}"
        with self._usable():
            (partial / ENTRY).write_text(json.dumps(facts), encoding="utf-8")
            for path in partial.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            partial.rename(folder)
            return layout.open(folder)

    def _open(self, key: str, layout: "Layout", *, warn: bool = True) -> "StoredFeatures | None":
        """Open an entry; None where it does not exist or is damaged. `warn` logs the damage."""
        folder = self.folder / key
        if key not in self:
            return None
        try:
            facts = read_json(folder / ENTRY)
            stored = layout.open(folder)
            fault = (
                "" if facts == layout.facts(stored) else "its checksum or its description differs"
            )
        except (OSError, ValueError, RuntimeError) as error:
            fault = brief(error)
        if fault:
            if warn:
                log.warning(
                    "stored features %s are damaged (%s); they are computed again", folder, fault
                )
            return None
        with suppress(OSError):  # the entry may belong to another user
            os.utime(folder / ENTRY)  # the time of last use
        return stored

    def _reserve(self, partial: Path, layout: "Layout") -> None:
        """Allocate the space on the disk.

        Writing into a mapped file on a full disk would kill the process.
        """
        try:
            layout.create(partial)
        except OSError as error:
            free = format_bytes(shutil.disk_usage(self.folder).free)
            reason = (
                f"the disk of {self.folder} has {free} left ({error}); "
                "set cache.dir to a folder on another disk"
            )
            raise self._no_space(layout.bytes, reason) from error


def entries(folder: Path) -> list[Path]:
    """Return all entries of a folder, with those being written and those of killed processes."""
    return sorted(
        {
            path.parent
            for pattern in (f"*/{ENTRY}", f"*{PARTIAL}/*")
            for path in folder.glob(pattern)
        }
    )


def entry_size(entry: Path) -> int:
    """Return the size of an entry in bytes; 0 if it no longer exists."""
    with suppress(OSError):
        return sum(path.stat().st_size for path in entry.iterdir())
    return 0


def remove(entry: Path) -> None:
    """Remove an entry; a run that has mapped its files can still read them.

    Raises:
        OSError: If the entry cannot be removed. It is a `filelock.Timeout` if a run is computing
            the entry.
    """
    path = entry.with_name(f"{entry.name.removesuffix(PARTIAL)}{_LOCK}")
    with FileLock(path, blocking=False):
        try:
            # Removed first, so that no entry exists without its values.
            (entry / ENTRY).unlink(missing_ok=True)
            shutil.rmtree(entry)
        finally:
            path.unlink(missing_ok=True)


def format_bytes(count: int) -> str:
    """Return a number of bytes as readable text, in GB or MB."""
    return f"{count / 1e9:.2f} GB" if count >= 10_000_000 else f"{count / 1e6:.2f} MB"  # noqa: PLR2004
