"""Ctrl-C, SIGTERM and SLURM's warning as an exception.

A stopped run can then report the signal and exit with its code.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class InterruptedRunError(BaseException):
    """A signal asked the run to stop.

    It is not an `Exception`, so that code which recovers from errors does not catch it.

    Attributes:
        signum: The number of the signal.
        exit_code: 128 + `signum`.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        self.exit_code = 128 + signum


@contextmanager
def signals_raise(*, second_ends: bool = True) -> Iterator[None]:
    """Raise `InterruptedRunError` on the first SIGINT or SIGTERM, and under SLURM on SIGUSR1.

    In another thread than the main one nothing changes: Python handles signals in the main thread.

    Args:
        second_ends: Whether a second signal ends the process at once. Otherwise it does what it did
            before: a second Ctrl-C does not end a notebook.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    warned = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
    before = {
        signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, *warned)
    }

    def stop(signum: int, _: FrameType | None) -> None:
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if second_ends else handler)
        raise InterruptedRunError(signum)

    for signum in before:
        signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
