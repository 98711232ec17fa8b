"""What a process makes of its own end where others work with it: the one that failed first is the one that is told of."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.interrupts import InterruptedRunError
from engine.ranks import this_rank
from engine.run_folder import RunFolder

# What torch says where another process has gone, or does not answer.
_LOST = re.compile(
    r"connection (was )?(closed|reset|refused|aborted)|broken pipe|remote process exited|failed to (recv|send)|socket ?timeout"
    r"|ncclRemoteError|nccl watchdog|communicator was aborted|collective operation timeout"
    r"|waiting \d+ ?ms for|wait timeout|store->get",
    re.IGNORECASE,
)
_FOR_A_PEER = 10.0  # seconds in which the process that failed writes down why
_FOR_THE_FIRST = 2.0  # in which rank 0 writes down what it found as well; faults in the config are found by all
_POLL = 0.1


class PeerFailedError(RuntimeError):
    """Another process failed, and this one could not go on without it."""

    is_for_the_user = True


@contextmanager
def in_company(folder: RunFolder) -> Iterator[None]:
    """Let the process that failed first be the first to write how the run ended.

    Args:
        folder: The run folder, which all processes see.

    Raises:
        PeerFailedError: Instead of torch's words for another process that has gone.
    """
    before = folder.read_json("status.json")
    try:
        yield
    except BaseException as error:
        rank = this_rank()
        if rank is None or rank.world == 1:
            raise
        if not has_lost_a_peer(error):
            _record(folder, before, _FOR_THE_FIRST if rank.number else 0.0)
            raise
        try:
            told = _record(folder, before, _FOR_A_PEER)
        except InterruptedRunError as stop:
            if rank.launcher != "torchrun" or stop.signum != signal.SIGTERM:
                raise
            told = None  # torchrun ends the others where one has died
        msg = told or f"another process of this run ended without saying why ({' '.join(str(error).split())[:160]})"
        raise PeerFailedError(msg) from error


def has_lost_a_peer(error: BaseException) -> bool:
    """Whether an error says no more than that another process has gone."""
    from_torch = isinstance(error, RuntimeError) and not getattr(error, "is_for_the_user", False)
    return from_torch and _LOST.search(str(error)) is not None


def own_words(words: str, number: int | None = None) -> str:
    """An error, with the rank that it belongs to where that is not rank 0; without a number it is this process's."""
    rank = this_rank()
    number = rank.number if number is None and rank is not None else number
    return f"rank {number}: {words}" if number else words


def _record(folder: RunFolder, before: dict[str, Any], seconds: float) -> str | None:
    """The error that another process wrote down, waited for; None where none does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = folder.read_json("status.json")
        if status != before and status.get("state") not in ("running", None):  # before: of a run that goes on
            return str(status.get("error"))
        time.sleep(_POLL)
    return None
