"""Files that are written completely or not at all."""

import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from run_folders.errors import UserError, brief

_RETRIES = 1000


class UnwritableError(UserError, OSError):
    """A file that cannot be written: a full disk, missing rights, a folder in its place."""


def make_folder(path: Path) -> Path:
    """Create a folder that nobody else has created; the next free name is taken.

    Returns:
        The folder: `path`, or `path_2`, `path_3`, ... in the same place.
    """
    folder, number, retries = path, 1, 0
    while True:
        try:
            folder.mkdir(parents=True)
        except (FileExistsError, FileNotFoundError):
            if os.path.lexists(folder):
                number += 1
                folder = path.with_name(f"{path.name}_{number}")
                continue
            # Another process has removed the empty parent at this moment.
            retries += 1
            if retries > _RETRIES:
                raise
        else:
            return folder


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless it has entries. Other processes may use or remove it meanwhile."""
    with suppress(OSError):
        folder.rmdir()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that readers see the old or the new content, never a part of it.

    Args:
        path: The file; its folder is created.
        write: Called with a temporary path in the same folder, at which it creates the file.

    Raises:
        UnwritableError: If the operating system does not allow it.
    """
    # The file is created inside `try`: a signal at any moment leaves no part behind.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or brief(error)}; make room for it"
        raise UnwritableError(msg) from error
    finally:
        with suppress(NotADirectoryError):
            temporary.unlink(missing_ok=True)


def link_atomically(source: Path, path: Path) -> None:
    """Create a hard link to a file atomically, or a copy if hard links are not supported.

    A later `write_atomically` to one of the two paths leaves the other file as it is.

    Args:
        source: The existing file.
        path: The link, in the same folder.
    """

    def link(temporary: Path) -> None:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    write_atomically(path, link)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically in UTF-8; characters that UTF-8 cannot encode are escaped."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

    write_atomically(path, write)
