"""The cost of a run, and of several. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from rich.console import Console
from rich.table import Table

from engine.feature_cache.store import format_bytes

# The costs of the jobs of this process, for the sum of a sweep.
costs_of_jobs: "list[Cost]" = []


@dataclass(frozen=True)
class Cost:
    """What a run would take.

    Attributes:
        epoch: Seconds of an epoch with its validation; 0 if nothing is trained.
        total: Seconds from start to report.
        host: Peak of resident memory in bytes.
        device: Peak of allocated memory of the GPU in bytes; None on a CPU.
        cache: Size of cached features in bytes.
        checkpoints: Size of the checkpoints in bytes.
    """

    epoch: float
    total: float
    host: int
    device: int | None
    cache: int
    checkpoints: int

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of two runs, one after the other."""
        devices = [device for device in (self.device, other.device) if device is not None]
        return Cost(
            self.epoch + other.epoch,
            self.total + other.total,
            max(self.host, other.host),
            max(devices, default=None),
            self.cache + other.cache,
            self.checkpoints + other.checkpoints,
        )


def print_cost(cost: Cost, console: Console, title: str = "cost, measured") -> None:
    """Print what a run would take."""
    table = Table(title, "")
    for name, text in cost_lines(cost):
        table.add_row(name, text)
    console.print(table)


def cost_lines(cost: Cost) -> Sequence[tuple[str, str]]:
    """Return names and texts of what a run would take."""
    device = [] if cost.device is None else [("peak memory of the GPU", format_bytes(cost.device))]
    return [
        ("seconds an epoch", f"{cost.epoch:.1f}"),
        ("seconds in all", f"{cost.total:.0f}"),
        ("peak memory", format_bytes(cost.host)),
        *device,
        ("disk for cached features", format_bytes(cost.cache)),
        ("disk for checkpoints", format_bytes(cost.checkpoints)),
    ]


def print_sum(console: Console) -> None:
    """Print the cost of all jobs of this process, if there are several, and forget them."""
    if len(costs_of_jobs) > 1:
        total = reduce(Cost.__add__, costs_of_jobs)
        print_cost(total, console, f"cost of all {len(costs_of_jobs)} jobs, one after the other")
    costs_of_jobs.clear()
