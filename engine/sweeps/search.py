"""A search for hyperparameters with Optuna: a study, the trials that it asks for, and what they came to."""

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from engine.sweeps.space import SearchError, check_space, override_value, suggest
from engine.sweeps.study import make_pruner, make_sampler, open_storage, resolved
from run_folders.errors import brief
from run_folders.run_folder import RunFolder
from run_folders.sweep import JOURNAL, SEARCH
from run_folders.sweep_job import DONE, NOT_OF_THE_JOB, read_job

log = logging.getLogger(__name__)

DIRECTIONS = {"max": "maximize", "min": "minimize"}
_JUDGED_BY = ("val/", "seconds/", "parameters/")
_HALF_ASKED = timedelta(minutes=10)
_SEEDS = 2**20


@dataclass(frozen=True)
class Asked:
    """A trial that is to run.

    Attributes:
        number: Of the trial in its study.
        job: Name of its run folder in the sweep's.
        overrides: Its overrides.
    """

    number: int
    job: str
    overrides: list[str]


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        space: See `check_space`.
        n_trials: How many trials the study has in the end, all machines and all resumed sweeps
            together.
        objectives: Metric -> min or max.
        monitored: The same of what a run reports after each epoch.
        sampler, pruner: By name.
        sampler_options, pruner_options: Arguments of Optuna's class.
        seed: Of the sampler.
        max_epochs: The most that a trial can report; None where it is not known.
        storage: A URL of a database, the path of a file, or None for a file in the sweep's folder.
        study_name: None for a study of this sweep alone.
        overrides: What all trials are started with, without secrets.
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
        """Raise `SearchError` where something cannot be meant."""
        check_space(self.space)
        if self.n_trials < 1:
            msg = f"hydra.sweeper.n_trials: received {self.n_trials}; at least 1 is needed"
            raise SearchError(msg)
        for name, mode in self.objectives.items():
            if not name.startswith(_JUDGED_BY):
                why = "; the test split chooses nothing" if name.startswith("test/") else ""
                msg = f"hydra.sweeper.objectives: received {name}{why}; a metric such as val/acc or seconds/fit is needed"
                raise SearchError(msg)
            if mode not in DIRECTIONS:
                msg = f"hydra.sweeper.objectives.{name}: received {mode!r}; choose min or max"
                raise SearchError(msg)
        if self.storage is not None and self.study_name is None:
            msg = "hydra.sweeper.storage is given without hydra.sweeper.study_name; name the study that is shared there"
            raise SearchError(msg)
        if self.pruner != "none" and self.objectives != self.monitored:
            (name, mode), *_ = self.monitored.items()
            msg = (
                f"hydra.sweeper.pruner: trials are pruned by what is monitored, {name} ({mode}), which is not the one "
                f"objective; set hydra.sweeper.pruner=none, or monitor and mode"
            )
            raise SearchError(msg)


class Search:
    """A study as one sweep sees it."""

    def __init__(self, sweep: Path, settings: Settings, identity: str) -> None:
        """Open the study, or begin it.

        Args:
            sweep: The sweep's folder.
            settings: How to search.
            identity: Of the sweep, so that trials of other machines are left alone.

        Raises:
            SearchError: If the study cannot be opened, or is another one.
        """
        settings.check()
        make_pruner(settings.pruner, settings.pruner_options, settings.max_epochs)
        make_sampler(settings.sampler, settings.sampler_options, settings.seed)
        self.sweep, self.settings, self.identity = sweep, settings, identity
        self.storage = resolved(settings.storage) if settings.storage else str(sweep / JOURNAL)
        # Machines that share a study and begin together are not to draw the same.
        self.seed = settings.seed + (
            zlib.crc32(identity.encode()) % _SEEDS if settings.storage else 0
        )
        self.study_name = settings.study_name or identity
        directions: list[Any] = [DIRECTIONS[mode] for mode in settings.objectives.values()]
        try:
            self.study = optuna.create_study(
                storage=open_storage(self.storage),
                study_name=self.study_name,
                directions=directions,
                load_if_exists=True,
            )
        except Exception as error:  # whatever a database's driver raises
            msg = f"hydra.sweeper.storage: the study cannot be opened ({brief(error)})"
            raise SearchError(msg) from error
        self._hold_against_before()
        self._failed_now = 0
        self._end_half_asked()
        self._left = self._interrupted()
        self._ask_failed_again()

    def _hold_against_before(self) -> None:
        """Have a study be of one kind of trial: same objectives, and the same overrides but for what the search chooses."""
        before, now = self.study.user_attrs.get("objectives"), dict(self.settings.objectives)
        if before is None:
            self.study.set_user_attr("objectives", now)
            self.study.set_user_attr("words", list(self.settings.overrides))
            return
        if before != now:
            was = ", ".join(f"{name} ({mode})" for name, mode in before.items())
            msg = f"study {self.study_name} has other objectives: {was}; name another one with hydra.sweeper.study_name"
            raise SearchError(msg)
        overrides = self.study.user_attrs["words"]
        if set(overrides) != set(self.settings.overrides):
            log.warning(
                "the study's first trials ran with %s; now it is %s",
                " ".join(overrides),
                " ".join(self.settings.overrides),
            )

    def _end_half_asked(self) -> None:
        """Fail the trials of which a process was killed before it had written down what they are."""
        long_ago = datetime.now() - _HALF_ASKED
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            known = "sweep" in trial.user_attrs
            own = self.settings.storage is None
            if not known and (own or (trial.datetime_start or long_ago) <= long_ago):
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _ours(self, *states: TrialState) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False, states=states)
        return [trial for trial in trials if trial.user_attrs.get("sweep") == self.identity]

    def _interrupted(self) -> list[Asked]:
        """The trials that this sweep left in the middle."""
        return [self._asked(trial) for trial in self._ours(TrialState.RUNNING)]

    def _ask_failed_again(self) -> None:
        asked = {trial.user_attrs.get("again") for trial in self.study.get_trials(deepcopy=False)}
        for trial in self._ours(TrialState.FAIL):
            if trial.number not in asked:
                self.study.enqueue_trial(
                    trial.params, {"again": trial.number, "job": trial.user_attrs["job"]}
                )

    def ask(self, count: int) -> list[Asked]:
        """The next trials, up to this many; none where the study has all."""
        asked, self._left = self._left[:count], self._left[count:]
        while len(asked) < count and self._open() > 0:
            asked.append(self._ask())
        return asked

    def _open(self) -> int:
        taken = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        return (
            self.settings.n_trials
            - len(self.study.get_trials(deepcopy=False, states=taken))
            - self._failed_now
        )

    def _ask(self) -> Asked:
        # A sampler's random numbers depend on what it has seen, so that a search that was
        # interrupted goes on as if it was not.
        seen = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = make_sampler(
            self.settings.sampler, self.settings.sampler_options, (self.seed + seen) % 2**32
        )
        trial = self.study.ask()
        try:
            chosen = suggest(trial, self.settings.space)
        except SearchError:
            self.study.tell(trial, state=TrialState.FAIL)
            raise
        overrides = [f"{key}={override_value(value)}" for key, value in chosen.items()]
        job = str(trial.user_attrs.get("job", trial.number))
        for name, value in (
            ("job", job),
            ("words", overrides),
            ("sweep", self.identity),
        ):  # the last makes it known
            trial.set_user_attr(name, value)
        return self._asked(trial)

    def _asked(self, trial: optuna.Trial | FrozenTrial) -> Asked:
        """A trial as a job: its own overrides, and what its run needs to report to the study."""
        job: str = trial.user_attrs["job"]
        spec = {
            "id": trial._trial_id,  # noqa: SLF001 - what a storage knows it by
            "number": trial.number,
            "storage": self.storage,
            "study": self.study_name,
            "pruner": self.settings.pruner,
            "pruner_options": dict(self.settings.pruner_options),
        }
        more = [f"sweep.trial={override_value(spec)}", f"hydra.sweep.subdir={job}"]
        return Asked(trial.number, job, [*trial.user_attrs["words"], *more])

    def tell(self, asked: Sequence[Asked]) -> None:
        """Tell the study what the run folders of these trials say; a trial that was interrupted stays open."""
        for trial in asked:
            job = read_job(self.sweep / trial.job)
            given = dict(
                override.split("=", 1)
                for override in trial.overrides
                if not override.startswith(NOT_OF_THE_JOB)
            )
            if (
                job.state in DONE
                and {key: job.overrides.get(key.lstrip("+")) for key in given} != given
            ):
                msg = f"{self.sweep / trial.job} holds the run of another trial; begin a new sweep"
                raise SearchError(msg)
            values = [job.metrics.get(name) for name in self.settings.objectives]
            if job.state == "finished" and None not in values:
                self.study.tell(trial.number, values)  # type: ignore[arg-type]
            elif job.state == "pruned":
                self.study.tell(trial.number, state=TrialState.PRUNED)
            elif job.state in ("failed", "finished"):
                self._failed_now += 1
                self.study.tell(trial.number, state=TrialState.FAIL)

    def write(self) -> None:
        """Write search.json into the sweep's folder: the trials, the best of them, and which parameters mattered."""
        trials = self.study.get_trials(deepcopy=False)
        done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        record = {
            "study": self.study_name,
            "sampler": self.settings.sampler,
            "pruner": self.settings.pruner,
            "n_trials": self.settings.n_trials,
            "objectives": dict(self.settings.objectives),
            "log": [key for key, entry in self.settings.space.items() if entry.get("log")],
            "best": [trial.number for trial in self._best()] if done else [],
            "importance": {
                name: self._importance(at) for at, name in enumerate(self.settings.objectives)
            },
            "trials": [
                _described(trial, self.identity)
                for trial in trials
                if trial.state is not TrialState.WAITING
            ],
        }
        RunFolder(self.sweep).write_json(SEARCH, record)

    def _best(self) -> list[FrozenTrial]:
        """The best trial, or those that no other one surpasses in all of several objectives."""
        return (
            [self.study.best_trial]
            if len(self.settings.objectives) == 1
            else self.study.best_trials
        )

    def _importance(self, objective: int) -> dict[str, float]:
        """Share of the objective's variance that each parameter explains (fANOVA, Hutter, Hoos & Leyton-Brown, ICML 2014)."""
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.settings.seed)

        def value(trial: FrozenTrial) -> float:
            return float(trial.values[objective])

        try:
            return dict(
                optuna.importance.get_param_importances(
                    self.study, evaluator=evaluator, target=value
                )
            )
        except (ValueError, RuntimeError):  # too few trials, or all alike
            return {}


def _described(trial: FrozenTrial, identity: str) -> dict[str, Any]:
    return {
        "number": trial.number,
        "job": trial.user_attrs.get("job") if trial.user_attrs.get("sweep") == identity else None,
        "state": trial.state.name.lower(),
        "params": trial.params,
        "values": trial.values,
        "reported": {str(step): value for step, value in sorted(trial.intermediate_values.items())},
    }
