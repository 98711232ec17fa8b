"""The error of the process that failed first.

Each process that fails writes an error file. The file with the earliest time stamp counts.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.processes.outcome import ERROR_FILE, describe, is_user_error
from engine.processes.ranks import Rank, add_rank, this_rank
from engine.processes.signals import InterruptedRunError
from run_folders.errors import UserError
from run_folders.files import write_text
from run_folders.run_folder import RunFolder

# Seconds to wait for the other processes' error files: a fault in the config fails all of them.
_ERROR_FILES_TIMEOUT = 2.0
_POLL = 0.1  # seconds
_UNSURE = "another process may have failed first: see the logs of the other ranks"


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
        The message. `rank N: ` stands before it, unless rank 0 reported the same error. Empty if
        no process wrote an error file.
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
def reporting_first_failure(
    folder: RunFolder, expected_exception: type[Exception]
) -> Iterator[None]:
    """Make every process report the error of the process that failed first.

    Processes of `train.py` write their error files for its supervisor. The supervisor also notices
    a process that was killed and wrote no file.

    Processes of torchrun and srun write their error files into the run folder, until one of them
    has written the first error to `status.json`. A process that is killed writes no file there. The
    others then fail because they lost the connection. They report that error, with a note that
    another process may have failed first.

    Args:
        folder: The run folder, which all processes share.
        expected_exception: An exception that ends all processes without being a failure.

    Raises:
        FailedElsewhereError: In a process that failed after another.
    """
    rank = this_rank()
    if rank is None or rank.world == 1:
        yield
        return
    own_file = Path(os.environ.get(ERROR_FILE) or error_file(folder.path, rank.number))
    own_file.unlink(missing_ok=True)  # the file of an earlier attempt
    attempt = _Attempt(folder, rank, own_file, folder.read_json("status.json"))
    try:
        yield
    except expected_exception:
        raise
    except Exception as error:
        elsewhere = attempt.share(error)
        if elsewhere is None:
            raise
        msg = f"another process failed first: {elsewhere}"
        raise FailedElsewhereError.from_text(msg) from error


@dataclass(frozen=True)
class _Attempt:
    """One attempt of a job, as one of its processes sees it.

    Attributes:
        folder: The run folder.
        rank: This process.
        own_file: Its error file; those of the others are beside it.
        status_at_start: `status.json` at the start. It may be that of the run that is resumed.
    """

    folder: RunFolder
    rank: Rank
    own_file: Path
    status_at_start: dict[str, Any]

    def share(self, error: Exception) -> str | None:
        """Share an error with all processes.

        Returns:
            The error of another process that failed first; None if this one did.
        """
        message = add_rank(describe(error))
        with suppress(OSError):  # a full disk must not hide the error
            write_text(self.own_file, message)
        # torchrun sends SIGTERM when another process has failed.
        with suppress(InterruptedRunError):
            self._wait_for_others()
        all_failed = self._all_failed()
        first = (
            self._recorded_error()
            or first_failure(self.own_file.parent, self.rank.world)
            or message
        )
        if self.rank.launcher != "thaw":
            # The error may be a lost connection to a process that was killed.
            unsure = isinstance(error, RuntimeError) and not is_user_error(error) and not all_failed
            self._record(error, first, unsure=unsure and first == message)
        return None if first == message else first

    def _record(self, error: Exception, first: str, *, unsure: bool) -> None:
        """Write the first error to `status.json`, unless another process has."""
        if unsure:
            error.add_note(_UNSURE)
            first = f"rank {self.rank.number}: {describe(error)}; {_UNSURE}"
        self.folder.write_end_if_missing("failed", first)
        self.own_file.unlink(missing_ok=True)

    def _wait_for_others(self) -> None:
        """Wait until all processes have failed or one has recorded the first error.

        The wait ends after `_ERROR_FILES_TIMEOUT` seconds.
        """
        deadline = time.monotonic() + _ERROR_FILES_TIMEOUT
        while time.monotonic() < deadline and not (self._all_failed() or self._recorded_error()):
            time.sleep(_POLL)

    def _all_failed(self) -> bool:
        """Return whether all processes have written error files."""
        return len(_error_files(self.own_file.parent, self.rank.world)) == self.rank.world

    def _recorded_error(self) -> str | None:
        """Return the error that another process has recorded in `status.json`; None without one."""
        status = self.folder.read_json("status.json")
        changed = status != self.status_at_start
        return status["error"] if changed and status.get("state") == "failed" else None


def _error_files(folder: Path, world: int) -> list[Path]:
    return [path for rank in range(world) if (path := error_file(folder, rank)).exists()]
