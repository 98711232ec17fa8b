"""A folder of stored features, shared by all runs of a machine: an entry is whole or not there. Imports no torch.

Each entry is a folder that is named by its key: the files of a `Layout`, and `entry.json` with what
they hold and a checksum. It is written under another name and renamed, by the one process that
holds the lock of its key. Readers hold no lock.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from datamodules.reading.errors import DataError
from run_folders.errors import brief

if TYPE_CHECKING:
    from datamodules.batching.stored_features import Layout, StoredFeatures

log = logging.getLogger(__name__)

# In an entry: what its files are. In the folder: a lock for each key that is computed, and entries
# that are not yet whole.
ENTRY, _LOCK, PARTIAL = "entry.json", ".lock", ".partial"


class StoreError(DataError):
    """Features cannot be stored: they do not fit, or the folder cannot be used; the message says which."""


class FeatureStore:
    """Finds entries, and has them written once while the folder stays below its limit."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"{self.folder} cannot be used ({error}); set cache.dir to a folder that can be written"
            raise StoreError(msg) from error

    def __contains__(self, key: str) -> bool:
        """Whether there is such an entry; it may yet turn out to be damaged. Raises `StoreError` where nobody may look."""
        with self._usable():
            return (self.folder / key / ENTRY).is_file()

    def check_limit(self, needed: Mapping[str, int]) -> None:
        """Raise `StoreError` where entries would take the folder above its limit; those that are there already never do.

        What another process has written of the same entries does not count, so that all processes
        of a run decide the same.

        Args:
            needed: Key -> bytes.
        """
        if all(key in self for key in needed):
            return
        used = sum(
            size_of(path)
            for path in entries(self.folder)
            if path.name.removesuffix(PARTIAL) not in needed
        )
        if used + sum(needed.values()) > self.max_bytes:
            why = f"{self.folder} holds {gigabytes(used)} of the {gigabytes(self.max_bytes)} that cache.max_gb allows"
            raise self._full(sum(needed.values()), f"{why}; raise cache.max_gb")

    def _full(self, needed: int, why: str) -> StoreError:
        space = f"make space (python scripts/cache.py list|clear --dir {self.folder})"
        return StoreError(f"the features take {gigabytes(needed)}, and {why}, or {space}")

    def get(
        self, key: str, layout: "Layout", compute: "Callable[[StoredFeatures], None]"
    ) -> "tuple[StoredFeatures, bool]":
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
        found = self._open(key, layout, tell=False)
        if found is not None:
            return found, True
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
            found = self._open(key, layout)
            return (
                (found, True)
                if found is not None
                else (self._computed(key, layout, compute), False)
            )
        finally:
            path.unlink(missing_ok=True)  # while it is held: whoever waits for it finds that out
            lock.release()

    def _computed(
        self, key: str, layout: "Layout", compute: "Callable[[StoredFeatures], None]"
    ) -> "StoredFeatures":
        """Write an entry whose lock is held."""
        folder, partial = self.folder / key, self.folder / f"{key}{PARTIAL}"
        for left in (folder, partial):  # a damaged one, and one of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        self.check_limit({key: layout.bytes})
        try:
            with self._usable():
                partial.mkdir()
                self._reserve(partial, layout)
                stored = layout.open(partial, shared=True)
            compute(stored)
            facts = layout.facts(stored)
            del stored
            with self._usable():
                (partial / ENTRY).write_text(json.dumps(facts), encoding="utf-8")
                for path in partial.iterdir():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                partial.rename(folder)
                return layout.open(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _open(self, key: str, layout: "Layout", *, tell: bool = True) -> "StoredFeatures | None":
        """Open an entry that is whole, and tell of one that is not."""
        folder = self.folder / key
        if key not in self:
            return None
        try:
            facts = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
            stored = layout.open(folder)
            fault = (
                ""
                if facts == layout.facts(stored)
                else "its checksum or its description is another"
            )
        except (OSError, ValueError, RuntimeError) as error:
            fault = brief(error)
        if fault:
            if tell:
                log.warning(
                    "stored features %s are damaged (%s); they are computed anew", folder, fault
                )
            return None
        with suppress(OSError):  # a folder of somebody else
            os.utime(folder / ENTRY)  # when it was last used
        return stored

    def _reserve(self, partial: Path, layout: "Layout") -> None:
        """Take the space on the disk: writing into a mapped file on a full disk would kill the process."""
        try:
            layout.create(partial)
        except OSError as error:
            free = gigabytes(shutil.disk_usage(self.folder).free)
            why = f"the disk of {self.folder} has {free} left ({error}); set cache.dir to a folder on another disk"
            raise self._full(layout.bytes, why) from error


def cache_folder(stated: str | None) -> Path:
    """Where features are kept: as stated, else below the user's cache folder, or the temporary one without a home."""
    own = stated or os.environ.get("THAW_CACHE")
    try:
        if own:
            return Path(own).expanduser().resolve()
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return (Path(base).expanduser() / "thaw" / "features").resolve()
    except RuntimeError:  # a container's user without a home
        return Path(tempfile.gettempdir()).resolve() / "thaw" / "features"


def entries(folder: Path) -> list[Path]:
    """The entries of a folder, and those that are being written or were left by a killed process."""
    return sorted(
        {
            path.parent
            for pattern in (f"*/{ENTRY}", f"*{PARTIAL}/*")
            for path in folder.glob(pattern)
        }
    )


def size_of(entry: Path) -> int:
    """Bytes of an entry; 0 where it is gone."""
    with suppress(OSError):
        return sum(path.stat().st_size for path in entry.iterdir())
    return 0


def remove(entry: Path) -> None:
    """Remove an entry; a run that has it mapped reads on.

    Raises:
        OSError: If it cannot be removed: a `filelock.Timeout` where a run is computing it.
    """
    path = entry.with_name(f"{entry.name.removesuffix(PARTIAL)}{_LOCK}")
    with FileLock(path, blocking=False):
        try:
            (entry / ENTRY).unlink(
                missing_ok=True
            )  # first, so that there is no entry without its values
            shutil.rmtree(entry)
        finally:
            path.unlink(missing_ok=True)


def gigabytes(count: int) -> str:
    """A number of bytes for a person."""
    return f"{count / 1e9:.2f} GB" if count >= 10_000_000 else f"{count / 1e6:.2f} MB"  # noqa: PLR2004
