"""The one lister of image files: each file below a folder is used, named with a reason, or counted.

Links are followed. No folder is listed twice, so links that lead in a circle end.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from run_folders.errors import brief, shortened

log = logging.getLogger(__name__)

# Ends of the names of image files, by which they are found among other files.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"
)  # fmt: skip
# Names, in lower case, that operating systems, file servers and tools give to files and folders of
# their own. Whatever is in such a folder is theirs too.
_OWN_NAMES = frozenset(
    (
        "__macosx", ".ds_store", ".appledouble", ".spotlight-v100", ".trashes", ".fseventsd",
        ".temporaryitems", ".documentrevisions-v100", ".apdisk", ".localized", "icon\r",
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin",
        "system volume information", "@eadir", "#recycle", "@recycle", "#snapshot", ".snapshot",
        "@recently-snapshot", "@tmp", "lost+found", ".directory", ".thumbnails", ".nomedia",
        ".picasa.ini", "picasa.ini", ".ipynb_checkpoints", "__pycache__", ".git", ".gitignore",
        ".gitattributes", ".gitkeep", ".keep", ".svn", ".hg", ".dvc", ".dvcignore", ".cache",
    )
)  # fmt: skip
_OWN_BEGINNINGS = ("._", ".trash-", ".nfs", ".fuse_hidden", ".smbdelete")
_OWN_ENDS = ("@synoeastream", "@synoresource")


class FoundFile(NamedTuple):
    """A file below a folder.

    Attributes:
        path: Its path relative to the folder, with slashes.
        fault: Why it cannot be used; empty if its content decides.
    """

    path: str
    fault: str


class _Frame(NamedTuple):
    """A folder that is being listed.

    Attributes:
        entries: Its entries that were not read yet, sorted by name.
        prefix: Its path relative to the folder that is walked, with a slash at its end.
        real: Its path without links.
        owner: Name of the folder of a system or tool that it belongs to; empty if it is the user's.
        hidden: Whether it is in a hidden folder.
    """

    entries: Iterator["os.DirEntry[str]"]
    prefix: str
    real: str
    owner: str
    hidden: bool


class Listing:
    """Lists folders, and counts what it finds.

    Attributes:
        found: Number of files that were found.
        named: Number of those that were returned, usable or not.
        passed_over: Files of systems and tools: name -> number.
        not_followed: Links to folders that are listed elsewhere.
        empty: Folders without entries, below the folders that are listed.
    """

    def __init__(self) -> None:
        self.found = self.named = 0
        self.passed_over: Counter[str] = Counter()
        self.not_followed: list[str] = []
        self.empty: list[str] = []

    def top(self, folder: Path) -> tuple[list[str], list[FoundFile]]:
        """Return the names of the folders in a folder, and the files beside them.

        Raises:
            OSError: If the folder cannot be listed.
        """
        folders, files = [], []
        real = os.path.realpath(folder)
        for entry in _entries(str(folder)):
            owner, hidden = _owner(entry.name), entry.name.startswith(".")
            if not _is_folder(entry):
                files += self._file(entry, entry.name, owner, hidden=False)
            elif owner or hidden:
                below = _Frame(iter([entry]), "", real, "", hidden=False)
                files += self._walk(below, {real})
            else:
                folders.append(entry.name)
        return folders, files

    def walk(self, folder: Path) -> Iterator[FoundFile]:
        """Yield the files below a folder, sorted by the parts of their paths.

        Raises:
            OSError: If the folder itself cannot be listed.
        """
        real = os.path.realpath(folder)
        first = _Frame(iter(_entries(str(folder))), "", real, "", hidden=False)
        yield from self._walk(first, {real})

    def _walk(self, first: _Frame, listed: set[str]) -> Iterator[FoundFile]:
        """Yield the files below a frame's entries; `listed` has the real paths of all folders."""
        frames, root = [first], first.real
        while frames:
            frame = frames[-1]
            entry = next(frame.entries, None)
            if entry is None:
                frames.pop()
                continue
            path = frame.prefix + entry.name
            owner = frame.owner or _owner(entry.name)
            if not _is_folder(entry):
                yield from self._file(entry, path, owner, hidden=frame.hidden)
                continue
            linked = entry.is_symlink()
            real = os.path.realpath(entry.path) if linked else f"{frame.real}/{entry.name}"
            if real in listed or (linked and _contains(root, real)):
                self.not_followed.append(path)
                continue
            if linked and (_contains(real, frame.real) or _contains(real, root)):
                reason = f"is a link to {real}, which contains the link; link to folders in it"
                yield from self._count(path, owner, reason)
                continue
            try:
                entries = _entries(entry.path)
            except OSError as error:
                reason = f"is a folder that cannot be listed: {brief(error)}"
                yield from self._count(path, owner, reason)
                continue
            listed.add(real)
            if not (entries or owner):
                self.empty.append(path)
            hidden = frame.hidden or entry.name.startswith(".")
            frames.append(_Frame(iter(entries), f"{path}/", real, owner, hidden))

    def _file(
        self, entry: "os.DirEntry[str]", path: str, owner: str, *, hidden: bool
    ) -> list[FoundFile]:
        """Count a file, and return it unless it belongs to a system or tool."""
        return self._count(path, owner, "" if owner else _fault(entry, hidden=hidden))

    def _count(self, path: str, owner: str, fault: str) -> list[FoundFile]:
        """Count an entry, and return it unless it belongs to a system or tool."""
        self.found += 1
        if owner:
            self.passed_over[owner] += 1
            return []
        self.named += 1
        return [FoundFile(path, fault)]

    def report(self, place: object) -> None:
        """Log what was passed over, which links were not followed and which folders are empty.

        Raises:
            RuntimeError: If a file was neither returned nor counted, which is a bug in Thaw.
        """
        passed = self.passed_over.total()
        if self.named + passed != self.found:
            msg = f"{place}: {self.found} files, {self.named} returned, {passed} passed over"
            raise RuntimeError(msg)
        if passed:
            names = shortened(f"{name}: {n}" for name, n in self.passed_over.most_common())
            noun = "file" if passed == 1 else "files"
            log.info(
                "%s: passed over %d %s of operating systems, file servers or tools (%s)",
                place, passed, noun, names,
            )  # fmt: skip
        if self.not_followed:
            log.info(
                "%s: did not follow %d links to folders that are listed already (%s)",
                place, len(self.not_followed), shortened(self.not_followed),
            )  # fmt: skip
        if self.empty:
            noun = "folder is" if len(self.empty) == 1 else "folders are"
            log.info("%s: %d %s empty (%s)", place, len(self.empty), noun, shortened(self.empty))


def _entries(folder: str) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)


def _owner(name: str) -> str:
    """Return the name under which a file of a system or tool is counted; empty for all others."""
    lower = name.lower()
    if lower in _OWN_NAMES:
        return name.strip()
    start = next((start for start in _OWN_BEGINNINGS if lower.startswith(start)), "")
    end = next((end for end in _OWN_ENDS if lower.endswith(end)), "")
    return f"{start}*" if start else f"*{end}" if end else ""


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _contains(folder: str, path: str) -> bool:
    """Return whether a folder is `path` or contains it; both without links."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _fault(entry: "os.DirEntry[str]", *, hidden: bool) -> str:
    """Return why a file cannot be used, or an empty string."""
    if hidden:
        return "is in a hidden folder; rename or remove the folder"
    if entry.name.startswith("."):
        return "is hidden: its name begins with a dot; rename or remove it"
    try:
        if entry.is_file():
            return ""
        if entry.is_symlink() and not Path(entry.path).exists():
            return f"is a link to {Path(entry.path).readlink()}, which does not exist"
    except OSError as error:
        return f"cannot be opened: {brief(error)}"
    return "is not a file but a pipe, socket or device"
