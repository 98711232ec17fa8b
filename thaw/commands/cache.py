"""List or remove stored features.

`list` shows all entries. `clear` removes them, but for those that a run is computing.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TypedDict

from filelock import Timeout

from datamodules.reading.errors import DataError
from engine.config.composing.paths import cache_folder
from engine.feature_cache.store import (
    ENTRY,
    entries,
    entry_size,
    format_bytes,
    remove,
)
from engine.processes.outcome import report_failure
from run_folders.errors import printable
from run_folders.untrusted import DamagedFileError, read_json


class _Facts(TypedDict):
    """The description of stored features."""

    samples: int
    views: int
    dtype: str
    shape: list[int]
    ragged: bool


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """List or clear a folder of stored features."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument("command", choices=["list", "clear"])
    parser.add_argument(
        "--dir",
        help="folder of the features, as in cache.dir "
        "(default: $THAW_CACHE, or thaw/features in the user's cache folder)",
    )
    options = parser.parse_args(arguments)
    with report_failure() as outcome:
        folder = cache_folder(options.dir)
        if not folder.is_dir():
            msg = (
                f"{folder} is not a folder; set --dir to the cache.dir of your runs "
                "(the first run creates the default folder)"
            )
            raise DataError(msg)
        print(printable(_list(folder) if options.command == "list" else _clear(folder)))
    return outcome.code


def _list(folder: Path) -> str:
    found = entries(folder)
    lines = [
        f"{entry.name:32}  {format_bytes(entry_size(entry)):>10}  {_content(entry)}"
        for entry in found
    ]
    return "\n".join(
        [*lines, f"{len(found)} entries, {format_bytes(sum(map(entry_size, found)))}, in {folder}"]
    )


def _content(entry: Path) -> str:
    """Return the description of an entry: samples, dtype, shape, and time of last use."""
    try:
        facts = read_json(entry / ENTRY, _Facts)
        views = f" in {facts['views']} views" if facts["views"] > 1 else ""
        shape = f"{facts['dtype']} {facts['shape']}{' per token' if facts['ragged'] else ''}"
        used = datetime.fromtimestamp((entry / ENTRY).stat().st_mtime)
    except (OSError, DamagedFileError):
        return "unfinished, damaged or of an older version; a run that needs it computes it again"
    return f"{facts['samples']} samples{views}, {shape}, last used {used:%Y-%m-%d %H:%M}"


def _clear(folder: Path) -> str:
    freed, failures = 0, []
    for entry in entries(folder):
        size = entry_size(entry)
        try:
            remove(entry)
            freed += size
        except Timeout:
            failures.append(f"{entry.name} was not removed: a run is computing it")
        except OSError as error:
            failures.append(f"{entry.name} was not removed: {error}")
    return "\n".join([*failures, f"{format_bytes(freed)} freed in {folder}"])
