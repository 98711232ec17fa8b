"""Runs that differ only by seed, as one: the mean of their metrics and how sure it is."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from scipy.stats import t as students_t

from reports.record import RunRecord
from reports.statistics import Interval
from run_folders.nested import leaves

# What may differ between runs of one group: the seed, and what has no bearing on a metric.
_SEED = "seed"
_WITHOUT_BEARING = ("plan.", "paths.", "sweep.", "logger.", "cache.")


@dataclass(frozen=True)
class Summary:
    """A metric of a group.

    Attributes:
        mean: Over the runs.
        deviation: Sample standard deviation, of n - 1; None for one run.
        interval: 95 % interval of the mean by Student's t; None for one run.
    """

    mean: float
    deviation: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Group:
    """Runs that differ only by seed; one run where there is no other.

    Attributes:
        runs: In the order given.
        names: What each is called.
    """

    runs: list[RunRecord]
    names: list[str]

    @property
    def first(self) -> RunRecord:
        """The run that stands for what all have in common."""
        return self.runs[0]

    @property
    def name(self) -> str:
        """What the group is called."""
        count = len(self.runs)
        return (
            self.names[0]
            if count == 1
            else f"{self.names[0]} and {count - 1} more seed{'s' if count > 2 else ''}"  # noqa: PLR2004
        )

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return [run.provenance["seed"] for run in self.runs if "seed" in run.provenance]

    def summary(self, stage: str, key: str) -> Summary | None:
        """A metric of `val` or `test` over the runs; None where one of them has none."""
        values = [run.metrics.get(stage, {}).get(key) for run in self.runs]
        numbers = [float(value) for value in values if value is not None]
        return summarised(numbers) if len(numbers) == len(values) else None


def summarised(values: Sequence[float]) -> Summary:
    """Mean, deviation and interval of at least one value."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Summary(mean, None, None)
    deviation = statistics.stdev(values)
    half = float(students_t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return Summary(mean, deviation, (mean - half, mean + half))


def grouped(runs: Sequence[RunRecord], names: Sequence[str]) -> list[Group]:
    """Put together the finished runs that differ only by seed and were tested on the same samples; order is kept."""
    groups: dict[Any, Group] = {}
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        key: Any = _key(run)
        together = groups.get(key)
        if key is None or (together and run.provenance.get("seed") in together.seeds):
            key = place  # a second run with one seed is not another draw
        group = groups.setdefault(key, Group([], []))
        group.runs.append(run)
        group.names.append(name)
    return list(groups.values())


def _key(run: RunRecord) -> tuple[Any, ...] | None:
    """What the runs of a group have in common; None for a run that stands alone."""
    if run.state != "finished" or not run.config:
        return None
    config = yaml.safe_load(run.config)
    if not isinstance(config, dict):
        return None
    tested = run.provenance.get("data", {}).get("test", {}).get("sha256")
    return tested, *_compared(config)


def _compared(config: dict[str, Any]) -> list[tuple[str, str]]:
    """The values that runs of one group have in common, by dotted key."""
    values = leaves(config)
    if values.get("ckpt_path") == "last":  # the same run, gone on with
        values["ckpt_path"] = None
    kept = [
        key
        for key in values
        if key.rpartition(".")[2] != _SEED and not f"{key}.".startswith(_WITHOUT_BEARING)
    ]
    return sorted((key, repr(values[key])) for key in kept)
