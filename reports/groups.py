"""Groups of runs that differ only by seed: mean and confidence interval of their metrics."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as students_t

from reports.record import RunRecord
from reports.statistics import Interval
from run_folders.nested import leaves

# Runs of one group may differ in the seed and in keys that do not affect any metric.
_SEED = "seed"
_KEYS_WITHOUT_EFFECT = ("plan.", "paths.", "sweep.", "logger.", "cache.")


@dataclass(frozen=True)
class Summary:
    """A metric of a group.

    Attributes:
        mean: Mean over the runs.
        deviation: Sample standard deviation, with n - 1; None for one run.
        interval: 95 % confidence interval of the mean by Student's t; None for one run.
    """

    mean: float
    deviation: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Group:
    """Runs that differ only by seed; at least one.

    Attributes:
        runs: The runs, in the order given.
        names: The display name of each run.
    """

    runs: list[RunRecord]
    names: list[str]

    @property
    def first(self) -> RunRecord:
        """The first run, from which the page takes all that the runs have in common."""
        return self.runs[0]

    @property
    def name(self) -> str:
        """The display name of the group."""
        more = len(self.runs) - 1
        if not more:
            return self.names[0]
        return f"{self.names[0]} and {more} more seed{'s' if more > 1 else ''}"

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs that recorded one."""
        return [run.provenance["seed"] for run in self.runs if "seed" in run.provenance]

    def summary(self, stage: str, key: str) -> Summary | None:
        """Summarise a metric of stage `val` or `test` over the runs; None if a run lacks it."""
        values = [run.metrics.get(stage, {}).get(key) for run in self.runs]
        numbers = [float(value) for value in values if value is not None]
        return summarize(numbers) if len(numbers) == len(values) else None


def summarize(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation and confidence interval of at least one value."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Summary(mean, None, None)
    deviation = statistics.stdev(values)
    half = float(students_t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return Summary(mean, deviation, (mean - half, mean + half))


def group_by_seed(runs: Sequence[RunRecord], names: Sequence[str]) -> list[Group]:
    """Group the finished runs that differ only by seed and were tested on the same samples.

    Every other run is a group of its own. The order of the runs is kept.
    """
    groups: dict[Any, Group] = {}
    for position, (run, name) in enumerate(zip(runs, names, strict=True)):
        key: Any = _group_key(run)
        existing = groups.get(key)
        if key is None or (existing and run.provenance.get("seed") in existing.seeds):
            key = position  # A second run with the same seed is no independent sample.
        group = groups.setdefault(key, Group([], []))
        group.runs.append(run)
        group.names.append(name)
    return list(groups.values())


def _group_key(run: RunRecord) -> tuple[Any, ...] | None:
    """Return a key that is equal for runs of one group; None for a run that is never grouped."""
    if run.state != "finished" or not run.config:
        return None
    tested = run.provenance.get("data", {}).get("test", {}).get("sha256")
    return tested, *_compared_values(run.config)


def _compared_values(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the config values that are equal in all runs of a group, with their dotted keys."""
    return sorted(
        (key, repr(value))
        for key, value in settings(config).items()
        if key.rpartition(".")[2] != _SEED
    )


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return dotted key -> value for the values of a config that affect metrics."""
    values = leaves(config)
    if values.get("ckpt_path") == "last":  # A resumed run equals one that was not stopped.
        values["ckpt_path"] = None
    return {
        key: value
        for key, value in values.items()
        if not f"{key}.".startswith(_KEYS_WITHOUT_EFFECT)
    }
