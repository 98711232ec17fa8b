"""Progress of long steps: a bar on a terminal, else a log line from time to time."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

SHOW_AFTER = 2.0  # seconds; a shorter step shows nothing
LOG_EVERY = 30.0  # seconds
_CHECK_EVERY = 0.1  # seconds between two updates

_Item = TypeVar("_Item")


@contextmanager
def progress(
    title: str, total: int | None = None, unit: str = "rows"
) -> Iterator[Callable[[int], None]]:
    """Show the progress of a step that takes more than two seconds.

    On a terminal a bar shows the count, the rate and the remaining time. Elsewhere a log line
    states them every 30 seconds. Of the processes of one machine only the first shows a bar.

    Args:
        title: What is done, for example "tokenizing train".
        total: Number of units in all; None if it is unknown.
        unit: Noun of what is counted.

    Yields:
        A function that is called with the number of units done since its last call.
    """
    console = Console(stderr=True)
    drawn = console.is_terminal and os.environ.get("LOCAL_RANK", "0") == "0"
    shown = _Bar(console, title, total, unit) if drawn else _Lines(title, total, unit)
    start = time.monotonic()
    done, due = 0, start + (SHOW_AFTER if drawn else LOG_EVERY)

    def advance(count: int) -> None:
        nonlocal done, due
        done += count
        now = time.monotonic()
        if now >= due:
            shown.show(done, done / (now - start))
            due = now + shown.pause

    try:
        yield advance
    finally:
        shown.close()


def tracked(
    items: Iterable[_Item], title: str, total: int | None = None, unit: str = "rows"
) -> Iterator[_Item]:
    """Yield the items and show the progress; see `progress`."""
    with progress(title, total, unit) as advance:
        for item in items:
            yield item
            advance(1)


class _Bar:
    """A bar on the terminal, drawn from its first call of `show` on."""

    pause = _CHECK_EVERY

    def __init__(self, console: Console, title: str, total: int | None, unit: str) -> None:
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn(
                "{task.completed:,.0f}" + (f" of {total:,} {unit}" if total else f" {unit}")
            ),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task(title, total=total, rate=0.0)

    def show(self, done: int, rate: float) -> None:
        self.bar.start()
        self.bar.update(self.task, completed=done, rate=rate)

    def close(self) -> None:
        self.bar.stop()


class _Lines:
    """Lines in the log."""

    pause = LOG_EVERY

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit

    def show(self, done: int, rate: float) -> None:
        of = f" of {self.total:,}" if self.total else ""
        left = f", {(self.total - done) / rate:,.0f} s left" if self.total and rate else ""
        log.info(
            "%s: %s%s %s, %s/s%s", self.title, f"{done:,}", of, self.unit, f"{rate:,.0f}", left
        )

    def close(self) -> None:
        """Do nothing: a step that has ended needs no further line."""
