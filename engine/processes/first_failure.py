"""The error of the process that failed first.

Each process that fails writes an error file. The file with the earliest time stamp counts.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.processes.outcome import ERROR_FILE, describe, is_user_error
from engine.processes.ranks import add_rank, this_rank
from engine.processes.signals import InterruptedRunError
from run_folders.errors import UserError
from run_folders.run_folder import RunFolder, write_text

# Seconds to wait for the other processes' error files: a fault in the config fails all of them.
_ERROR_FILES_TIMEOUT = 2.0
_POLL = 0.1  # seconds
_UNSURE = "another process may have ended first: see its log"


class FailedElsewhereError(UserError, RuntimeError):
    """Another process failed before this one."""


def error_file(folder: Path, rank: int) -> Path:
    """Return the path of a process's error file."""
    return folder / f"error_rank{rank}.txt"


def first_failure(folder: Path, world: int) -> str:
    """Return the error of the process that failed first.

    Args:
        folder: The folder of the error files.
        world: The number of processes. Files of higher ranks belong to an earlier attempt.

    Returns:
        The message with its rank; without the rank where rank 0 reported the same error. Empty
        where no process wrote an error file.
    """
    found = []
    for path in _error_files(folder, world):
        # A process removes its own file once status.json has the first error.
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path.read_text(encoding="utf-8")))
    if not found:
        return ""
    first = min(found)[1]
    without_rank = re.sub(r"^rank \d+: ", "", first)
    return without_rank if any(message == without_rank for _, message in found) else first


@contextmanager
def reporting_first_failure(folder: RunFolder, no_failure: type[Exception]) -> Iterator[None]:
    """Make every process report the error of the process that failed first.

    Processes of `train.py` write their error files for its supervisor. The supervisor also notices
    a process that was killed and wrote no file.

    Processes of torchrun and srun write their error files into the run folder, until one of them
    has written the first error to `status.json`. There a killed process writes no error. Only the
    lost connection of the others shows it, and that error is reported unchanged.

    Args:
        folder: The run folder, which all processes share.
        no_failure: An exception that ends all processes without being a failure.

    Raises:
        FailedElsewhereError: In a process that failed after another.
    """
    rank = this_rank()
    if rank is None or rank.world == 1:
        yield
        return
    own, before = (
        Path(os.environ.get(ERROR_FILE) or error_file(folder.path, rank.number)),
        folder.read_json("status.json"),
    )
    own.unlink(missing_ok=True)  # the file of an earlier attempt
    try:
        yield
    except no_failure:
        raise
    except Exception as error:
        message = add_rank(describe(error))
        with suppress(OSError):  # a full disk must not hide the error
            write_text(own, message)
        # torchrun sends SIGTERM when another process has failed.
        with suppress(InterruptedRunError):
            _wait_for_others(folder, before, own.parent, rank.world)
        all_left = len(_error_files(own.parent, rank.world)) == rank.world
        first = _recorded_error(folder, before) or first_failure(own.parent, rank.world) or message
        failed_first = first == message
        if rank.launcher != "thaw":
            if (
                failed_first
                and not all_left
                and isinstance(error, RuntimeError)
                and not is_user_error(error)
            ):
                error.add_note(_UNSURE)
                first = f"rank {rank.number}: {describe(error)}; {_UNSURE}"
            folder.write_end_if_missing("failed", first)
            own.unlink(missing_ok=True)
        if failed_first:
            raise
        msg = f"another process failed first: {first}"
        raise FailedElsewhereError(msg) from error


def _wait_for_others(folder: RunFolder, before: dict[str, Any], errors: Path, world: int) -> None:
    """Wait until all processes have written error files or one has recorded the first error.

    The wait ends after `_ERROR_FILES_TIMEOUT` seconds.
    """
    deadline = time.monotonic() + _ERROR_FILES_TIMEOUT
    while (
        time.monotonic() < deadline
        and len(_error_files(errors, world)) < world
        and not _recorded_error(folder, before)
    ):
        time.sleep(_POLL)


def _recorded_error(folder: RunFolder, before: dict[str, Any]) -> str | None:
    """Return the error that another process has recorded in `status.json`; None without one.

    An unchanged status is that of the interrupted run which this one resumes.
    """
    status = folder.read_json("status.json")
    return status["error"] if status != before and status.get("state") == "failed" else None


def _error_files(folder: Path, world: int) -> list[Path]:
    return [path for rank in range(world) if (path := error_file(folder, rank)).exists()]
