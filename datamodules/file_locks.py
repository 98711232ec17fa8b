"""Locks on files that several processes share: they go with the process that holds them, however it ends."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)


def hold(path: Path) -> IO[str] | None:
    """Open a file with a shared lock, so that it is not removed; None where there is none."""
    while True:
        try:
            file = path.open(encoding="utf-8")
        except OSError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        if is_at(file, path):
            return file
        file.close()


@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Hold an exclusive lock, which goes with its process; where another holds it, say so and wait."""
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if waiting:
                log.info(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        if is_at(file, path):
            break
        file.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # whoever waits for it finds that out
        file.close()


def is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


@contextmanager
def free(path: Path, *, create: bool = False) -> Iterator[bool]:
    """Hold an exclusive lock if nobody has one; gives whether that is so. With `create` the file need not be there."""
    try:
        file = path.open("a" if create else "r", encoding="utf-8")
    except OSError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        alone = is_at(file, path)
        yield alone
        if create and alone:  # else it is another's file by now
            with suppress(OSError):
                path.unlink()
