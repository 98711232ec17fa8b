"""The settings of a hyperparameter search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.sweeps.space import SearchError, check_space
from run_folders.kinds import metrics_by_name

DIRECTIONS = {"max": "maximize", "min": "minimize"}
_OBJECTIVE_PREFIXES = ("val/", "seconds/", "parameters/")


@dataclass(frozen=True)
class Settings:
    """The settings of a search.

    Attributes:
        space: The search space; see `check_space`.
        n_trials: The number of trials in the study, of all machines and resumed sweeps together.
        objectives: Metric -> min or max.
        monitored: The metric that a run reports after each epoch -> min or max.
        sampler: A key of `SAMPLERS`.
        sampler_options: Arguments of the sampler's class.
        pruner: A key of `PRUNERS`.
        pruner_options: Arguments of the pruner's class.
        seed: The seed of the sampler.
        max_epochs: The largest number of epochs that a trial can report; None if unknown.
        storage: The URL of a database or the path of a file; None for a file in the sweep's
            folder.
        study_name: The name of a shared study; None for a study of this sweep alone.
        overrides: The overrides that all trials share, without secrets.
    """

    space: Mapping[str, Any]
    n_trials: int
    objectives: Mapping[str, str]
    monitored: Mapping[str, str]
    sampler: str
    sampler_options: Mapping[str, Any]
    pruner: str
    pruner_options: Mapping[str, Any]
    seed: int
    max_epochs: int | None
    storage: str | None
    study_name: str | None
    overrides: Sequence[str] = ()

    def check(self) -> None:
        """Check the settings.

        Raises:
            SearchError: If a setting is invalid, or two settings contradict each other.
        """
        check_space(self.space)
        if self.n_trials < 1:
            msg = f"hydra.sweeper.n_trials: received {self.n_trials}; at least 1 is needed"
            raise SearchError(msg)
        for name, mode in self.objectives.items():
            if not name.startswith(_OBJECTIVE_PREFIXES):
                why = "; the test split must not select trials" if name.startswith("test/") else ""
                msg = (
                    f"hydra.sweeper.objectives: received {name}{why}; "
                    "a metric such as val/acc or seconds/fit is needed"
                )
                raise SearchError(msg)
            if mode not in DIRECTIONS:
                msg = f"hydra.sweeper.objectives.{name}: received {mode!r}; choose min or max"
                raise SearchError(msg)
            metric = metrics_by_name().get(name.removeprefix("val/"))
            if metric is not None and mode != metric.better:
                direction = "lower" if metric.better == "min" else "higher"
                msg = (
                    f"hydra.sweeper.objectives.{name}: received {mode!r}; {direction} values of "
                    f"{name} are better: set {metric.better}"
                )
                raise SearchError(msg)
        if self.storage is not None and self.study_name is None:
            msg = (
                "hydra.sweeper.storage is set without hydra.sweeper.study_name; "
                "set the name of the shared study"
            )
            raise SearchError(msg)
        if self.pruner != "none" and self.objectives != self.monitored:
            (name, mode), *_ = self.monitored.items()
            msg = (
                "hydra.sweeper.pruner: trials are pruned by the monitored metric, "
                f"{name} ({mode}), which must be the only objective; "
                "set hydra.sweeper.pruner=none, or change monitor and mode"
            )
            raise SearchError(msg)
