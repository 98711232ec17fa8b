"""`train.py` in a process that waits before an epoch, so that a test can end it at that point."""

import signal
import sys
from itertools import count

import train
from lightning_modules.base import Task


def pausing(epoch: str, runs: str, *overrides: str) -> None:
    """Run `train.py` and wait for a signal before an epoch begins.

    Args:
        epoch: The epoch, counted from 0.
        runs: In a sweep, how many runs of this process begin the epoch without a pause.
        overrides: Arguments of `train.py`.
    """
    begin, passed = Task.on_train_epoch_start, count()

    def pause_first(self: Task) -> None:
        if self.current_epoch == int(epoch) and next(passed) == int(runs):
            signal.pause()
        begin(self)

    Task.on_train_epoch_start = pause_first  # type: ignore[method-assign]
    sys.argv = ["train.py", *overrides]
    sys.exit(train.main())
