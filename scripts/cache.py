"""Stored features: `python scripts/cache.py list` shows what is kept, `clear` removes what no run is computing."""

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path

from filelock import Timeout

from datamodules.reading.errors import DataError
from engine.feature_cache.store import ENTRY, cache_folder, entries, gigabytes, remove, size_of
from engine.processes.outcome import report_failure


def main() -> int:
    """List or clear a folder of stored features."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["list", "clear"])
    parser.add_argument(
        "--dir",
        help="the folder, as cache.dir; $THAW_CACHE, else thaw/features in the user's cache folder",
    )
    arguments = parser.parse_args()
    with report_failure() as outcome:
        folder = cache_folder(arguments.dir)
        if not folder.is_dir():
            msg = f"{folder} is no folder; give --dir what your runs have as cache.dir (the default is made by the first run)"
            raise DataError(msg)
        print(_list(folder) if arguments.command == "list" else _clear(folder))
    return outcome.code


def _list(folder: Path) -> str:
    found = entries(folder)
    lines = [
        f"{entry.name:32}  {gigabytes(size_of(entry)):>10}  {_content(entry)}" for entry in found
    ]
    return "\n".join(
        [*lines, f"{len(found)} entries, {gigabytes(sum(map(size_of, found)))}, in {folder}"]
    )


def _content(entry: Path) -> str:
    """What an entry holds, and when it was last used."""
    try:
        facts = json.loads((entry / ENTRY).read_text(encoding="utf-8"))
        views = f" in {facts['states']} views" if facts["states"] > 1 else ""
        shape = f"{facts['dtype']} {facts['shape']}{' a token' if facts['ragged'] else ''}"
        used = datetime.fromtimestamp((entry / ENTRY).stat().st_mtime)
    except (OSError, ValueError, LookupError, TypeError):
        return "not finished, or damaged; a run that needs it computes it anew"
    return f"{facts['samples']} samples{views}, {shape}, last used {used:%Y-%m-%d %H:%M}"


def _clear(folder: Path) -> str:
    freed, left = 0, []
    for entry in entries(folder):
        size = size_of(entry)
        try:
            remove(entry)
            freed += size
        except Timeout:
            left.append(f"{entry.name} stays: a run is computing it")
        except OSError as error:
            left.append(f"{entry.name} stays: {error}")
    return "\n".join([*left, f"{gigabytes(freed)} freed in {folder}"])


if __name__ == "__main__":
    sys.exit(main())
