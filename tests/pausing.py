"""`train.py` in a process that stops before an epoch and waits, so that a test ends it there on any machine."""

import signal
import sys
from itertools import count

import train
from lightning_modules.base import Task


def pausing(epoch: str, runs: str, *words: str) -> None:
    """Run `train.py` and wait for a signal before an epoch begins.

    Args:
        epoch: The epoch, counted from 0.
        runs: How many runs of this process begin the epoch without a pause, in a sweep.
        words: The command line.
    """
    begin, passed = Task.on_train_epoch_start, count()

    def waits(self: Task) -> None:
        if self.current_epoch == int(epoch) and next(passed) == int(runs):
            signal.pause()
        begin(self)

    Task.on_train_epoch_start = waits  # type: ignore[method-assign]
    sys.argv = ["train.py", *words]
    sys.exit(train.main())
