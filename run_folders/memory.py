"""The free and the peak memory, and files of weights that exceed it. Standard library only."""

import os
import resource
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

from run_folders.errors import brief
from run_folders.untrusted import MAX_JSON, DamagedFileError, damaged

_STATUS = Path("/proc/self/status")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")  # the limit of a container
# The files of its limit, its use and the parts of its use: cgroup version 2, and version 1.
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
_CACHED = ("active_file", "inactive_file")  # contents of files, which the system can drop
_ARCHIVES = ("pytorch_model*.bin", "adapter_model*.bin")  # that transformers loads from a folder


def free_memory() -> int:
    """Return the bytes that this process can still use; all of the memory if that is unknown."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError, ValueError, KeyError):  # another system
        lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        found.append(int(lines["MemAvailable"].removesuffix("kB")) * 1024)
    for names in _LIMITS:
        with suppress(OSError, ValueError, KeyError):  # another version, or no limit
            limit, used, parts = ((_CGROUP / name).read_text() for name in names)
            sizes = dict(line.split() for line in parts.splitlines())
            cached = sum(int(sizes[key]) for key in _CACHED)
            found.append(int(limit) - int(used) + cached)
    return max(0, min(found))


def peak_memory() -> int:
    """Return the peak of this process's resident memory in bytes."""
    with suppress(OSError, ValueError, KeyError):  # another system
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(lines["VmHWM"].removesuffix("kB")) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def check_archive(path: Path, advice: str) -> None:
    """Check what a file of weights unpacks to, before anything of it is unpacked.

    `torch.save`, numpy and Keras write zip archives. A small archive can unpack to any size.

    Args:
        path: The file. Another file than a zip archive cannot unpack to more than its size.
        advice: What to do about a file that is refused.

    Raises:
        DamagedFileError: If the archive is damaged, or its entries exceed the free memory.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise damaged(path, brief(error), advice) from error
    free = free_memory()
    if unpacked > free:
        msg = (
            f"{path} is {path.stat().st_size:,} bytes, but unpacks to {unpacked:,} bytes, more "
            f"than the {free:,} bytes of free memory; {advice}"
        )
        raise DamagedFileError(msg)


def check_model_folder(folder: Path) -> None:
    """Check the files of a folder that another library is going to load.

    Args:
        folder: A folder of weights, configuration and tokenizer. Nothing is checked if it is none.

    Raises:
        DamagedFileError: If an archive unpacks to more than the free memory, or a JSON file is too
            large.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.is_file():  # a pipe would never end, and nothing is loaded from a broken link
            continue
        if any(path.match(pattern) for pattern in _ARCHIVES):
            check_archive(path, "take the weights from another source")
        if path.suffix == ".json" and path.stat().st_size > MAX_JSON:
            reason = f"it has more than {MAX_JSON:,} bytes, the largest size that is read"
            raise damaged(path, reason, "take the folder from another source")
