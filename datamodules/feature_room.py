"""Room for stored features: a limit on their folder, kept by removing what was used least recently."""

import gc
import logging
import shutil
from contextlib import suppress
from pathlib import Path

from datamodules.errors import DataError
from datamodules.file_locks import free

log = logging.getLogger(__name__)

# Of an entry: the values, and what they are. Of the folder: a lock for each key, and entries that are not yet whole.
VALUES, ENTRY, LOCK, PARTIAL = "values.bin", "entry.json", ".lock", ".partial"


class StoreError(DataError):
    """Features cannot be stored: they do not fit, or the folder cannot be used; the message says which."""


def refuse_larger(needed: int, limit: int) -> None:
    """Raise `StoreError` for bytes that can never be stored under a limit."""
    if needed > limit:
        msg = f"the features take {gigabytes(needed)}, and cache.max_gb allows {gigabytes(limit)} for all"
        raise StoreError(msg)


def make_room(folder: Path, needed: int, limit: int) -> None:
    """Remove entries that nobody uses, the least recently used first, as far as is needed.

    Args:
        folder: Holds the entries.
        needed: Bytes.
        limit: Bytes that all entries may take.

    Raises:
        StoreError: If there is not enough room all the same.
    """
    refuse_larger(needed, limit)
    for left in folder.glob(f"*{PARTIAL}"):
        _remove_abandoned(left)
    entries = sorted(folder.glob(f"*/{ENTRY}"), key=_last_use)
    sizes = {entry.parent: _size(entry.parent) for entry in [*entries, *folder.glob(f"*{PARTIAL}/{VALUES}")]}
    if sum(sizes.values()) + needed > limit:
        gc.collect()  # what an earlier job of this process holds only until it is found to be garbage
    for entry in entries:
        if sum(sizes.values()) + needed <= limit and needed <= shutil.disk_usage(folder).free:
            return
        if _remove_unused(entry):
            del sizes[entry.parent]
    used, left_free = sum(sizes.values()), shutil.disk_usage(folder).free
    if used + needed > limit:
        msg = (
            f"the features take {gigabytes(needed)}; cache.max_gb allows {gigabytes(limit)} for all, "
            f"and other runs use {gigabytes(used)} of it"
        )
        raise StoreError(msg)
    if needed > left_free:
        msg = f"the features take {gigabytes(needed)}, and the disk of {folder} has {gigabytes(left_free)} left"
        raise StoreError(msg)


def gigabytes(count: int) -> str:
    """A number of bytes for a person."""
    return f"{count / 1e9:.2f} GB" if count >= 10_000_000 else f"{count / 1e6:.2f} MB"  # noqa: PLR2004


def _last_use(entry: Path) -> float:
    with suppress(OSError):
        return entry.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    with suppress(OSError):
        return sum(path.stat().st_size for path in folder.iterdir())
    return 0


def _remove_unused(entry: Path) -> bool:
    """Remove an entry that nobody holds; whether it is gone."""
    with free(entry) as alone:
        if alone:
            log.info("removing stored features that no run uses, to make room: %s", entry.parent)
            with suppress(PermissionError):  # of another user: it stays
                entry.unlink(missing_ok=True)  # first, so that there is no entry without its values
                shutil.rmtree(entry.parent, ignore_errors=True)
    return not entry.exists()


def _remove_abandoned(partial: Path) -> None:
    """Remove what a killed process left behind."""
    with free(partial.with_name(partial.name.removesuffix(PARTIAL) + LOCK), create=True) as alone:
        if alone:
            shutil.rmtree(partial, ignore_errors=True)
