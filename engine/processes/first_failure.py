"""Which of several processes failed first: each that fails leaves an error file, and the earliest time stamp counts."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.processes.outcome import ERROR_FILE, describe, is_for_the_user
from engine.processes.ranks import this_rank, with_rank
from engine.processes.signals import InterruptedRunError
from run_folders.errors import UserError
from run_folders.run_folder import RunFolder, write_text

_FOR_THE_OTHERS = 2.0  # seconds in which they leave their error files too: all processes find a fault in the config
_POLL = 0.1
_UNSURE = "another process may have ended first: see its log"


class FailedElsewhereError(UserError, RuntimeError):
    """Another process failed before this one."""


def error_file(folder: Path, rank: int) -> Path:
    """Where a process leaves its error."""
    return folder / f"error_rank{rank}.txt"


def first_failure(folder: Path, world: int) -> str:
    """The error of the process that failed first.

    Args:
        folder: Where the processes left their error files.
        world: How many processes there are; files of others are of an attempt before this one.

    Returns:
        Its message, with its rank; those of rank 0 where rank 0 found the same. Empty where no
        process could leave any.
    """
    found = []
    for path in _error_files(folder, world):
        with suppress(
            FileNotFoundError
        ):  # a process removes its own when status.json has the first error
            found.append((path.stat().st_mtime, path.read_text(encoding="utf-8")))
    if not found:
        return ""
    first = min(found)[1]
    without_rank = re.sub(r"^rank \d+: ", "", first)
    return without_rank if any(message == without_rank for _, message in found) else first


@contextmanager
def reporting_first_failure(folder: RunFolder, no_failure: type[Exception]) -> Iterator[None]:
    """Have every process report the error of the one that failed first.

    Processes that `train.py` started leave their errors with its supervisor, which also knows of a
    process that was killed and could leave none. Those of torchrun and srun leave them in the run
    folder until one has written the first error to `status.json`. There a killed process is known
    only by what the others say when they lose it, which is reported as it is.

    Args:
        folder: The run folder, which all processes see.
        no_failure: What ends all processes alike.

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
    own.unlink(missing_ok=True)  # of an attempt before this one
    try:
        yield
    except no_failure:
        raise
    except Exception as error:
        message = with_rank(describe(error))
        with suppress(OSError):  # a full disk must not hide the error
            write_text(own, message)
        with suppress(InterruptedRunError):  # torchrun stops the others when one has failed
            _wait_for_others(folder, before, own.parent, rank.world)
        all_left = len(_error_files(own.parent, rank.world)) == rank.world
        first = _recorded_error(folder, before) or first_failure(own.parent, rank.world) or message
        failed_first = first == message
        if rank.launcher != "thaw":
            if (
                failed_first
                and not all_left
                and isinstance(error, RuntimeError)
                and not is_for_the_user(error)
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
    """Wait until all processes have left their errors or one has recorded the first, but not for long."""
    deadline = time.monotonic() + _FOR_THE_OTHERS
    while (
        time.monotonic() < deadline
        and len(_error_files(errors, world)) < world
        and not _recorded_error(folder, before)
    ):
        time.sleep(_POLL)


def _recorded_error(folder: RunFolder, before: dict[str, Any]) -> str | None:
    """The error that another process has recorded; what stood there before is of a run that goes on."""
    status = folder.read_json("status.json")
    return status["error"] if status != before and status.get("state") == "failed" else None


def _error_files(folder: Path, world: int) -> list[Path]:
    return [path for rank in range(world) if (path := error_file(folder, rank)).exists()]
