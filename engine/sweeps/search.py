"""A hyperparameter search with Optuna: it asks a study for trials and tells it their results."""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from engine.old_names import translate_overrides
from engine.sweeps.recorded_overrides import untrusted
from engine.sweeps.search_record import search_record
from engine.sweeps.search_settings import DIRECTIONS, Settings
from engine.sweeps.space import SearchError, override_value, suggest
from engine.sweeps.study import make_pruner, make_sampler, open_storage, resolved
from run_folders.errors import brief
from run_folders.run_folder import RunFolder
from run_folders.sweep import JOURNAL, SEARCH
from run_folders.sweep_job import DONE, INTERNAL_OVERRIDES, read_job

log = logging.getLogger(__name__)

# Age from which a trial without attributes counts as abandoned in a shared study.
_INCOMPLETE_AFTER = timedelta(minutes=10)
_SEEDS = 2**20  # number of offsets to the seed, one per sweep


@dataclass(frozen=True)
class AskedTrial:
    """A trial that the study has asked to run.

    Attributes:
        number: The trial's number in its study.
        job: The name of its run folder inside the sweep's folder.
        overrides: The overrides of its run.
    """

    number: int
    job: str
    overrides: list[str]


class Search:
    """One sweep's part of a study; other machines may add trials to the same study."""

    def __init__(self, sweep: Path, settings: Settings, identity: str) -> None:
        """Open the study, or create it.

        Args:
            sweep: The sweep's folder.
            settings: The settings of the search.
            identity: The id of the sweep, which distinguishes its trials from others in the study.

        Raises:
            SearchError: If the settings are invalid, or the study cannot be opened or has other
                objectives.
        """
        settings.check()
        make_pruner(settings.pruner, settings.pruner_options, settings.max_epochs)
        make_sampler(settings.sampler, settings.sampler_options, settings.seed)
        self.sweep, self.settings, self.identity = sweep, settings, identity
        self.storage = resolved(settings.storage) if settings.storage else str(sweep / JOURNAL)
        # Machines that share a study and start together must not draw the same values.
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
        self._check_same_study()
        self._failed_now = 0  # trials that have failed in this process
        self._fail_incomplete_trials()
        self._left = self._interrupted()  # trials to run before new ones are asked for
        self._retry_failed()

    def _check_same_study(self) -> None:
        """Compare objectives and shared overrides with those of the study's first sweep.

        Other objectives raise `SearchError`. Other overrides are only logged.
        """
        before, now = self.study.user_attrs.get("objectives"), dict(self.settings.objectives)
        if before is None:
            self.study.set_user_attr("objectives", now)
            self.study.set_user_attr("words", list(self.settings.overrides))
            return
        if before != now:
            objectives = ", ".join(f"{name} ({mode})" for name, mode in before.items())
            msg = (
                f"study {self.study_name} has other objectives: {objectives}; "
                "set another hydra.sweeper.study_name"
            )
            raise SearchError(msg)
        overrides = self.study.user_attrs["words"]
        if set(overrides) != set(self.settings.overrides):
            log.warning(
                "the study's first trials ran with the overrides %s; this sweep has %s",
                " ".join(overrides),
                " ".join(self.settings.overrides),
            )

    def _fail_incomplete_trials(self) -> None:
        """Mark trials as failed whose process was killed before it had set their attributes."""
        long_ago = datetime.now() - _INCOMPLETE_AFTER
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            complete = "sweep" in trial.user_attrs
            private = self.settings.storage is None
            if not complete and (private or (trial.datetime_start or long_ago) <= long_ago):
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _trials_of_this_sweep(self, *states: TrialState) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False, states=states)
        return [trial for trial in trials if trial.user_attrs.get("sweep") == self.identity]

    def _interrupted(self) -> list[AskedTrial]:
        """Return the trials of this sweep that were interrupted."""
        return [self._asked(trial) for trial in self._trials_of_this_sweep(TrialState.RUNNING)]

    def _retry_failed(self) -> None:
        """Enqueue the failed trials of this sweep with the same parameters, each of them once."""
        retried = {trial.user_attrs.get("again") for trial in self.study.get_trials(deepcopy=False)}
        for trial in self._trials_of_this_sweep(TrialState.FAIL):
            if trial.number not in retried:
                self.study.enqueue_trial(
                    trial.params, {"again": trial.number, "job": trial.user_attrs["job"]}
                )

    def ask(self, count: int) -> list[AskedTrial]:
        """Return the next trials to run.

        Interrupted trials come first.

        Args:
            count: The largest number of trials to return.

        Returns:
            The trials; empty where the study has `n_trials` already.
        """
        asked, self._left = self._left[:count], self._left[count:]
        while len(asked) < count and self._remaining() > 0:
            asked.append(self._ask())
        return asked

    def _remaining(self) -> int:
        """Return the number of trials that the study still needs."""
        counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        return (
            self.settings.n_trials
            - len(self.study.get_trials(deepcopy=False, states=counted))
            - self._failed_now
        )

    def _ask(self) -> AskedTrial:
        # The seed depends on the number of trials, so that a resumed search draws the same values
        # as an uninterrupted one.
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
        # "sweep" is set last: it marks the attributes as complete.
        for name, value in (("job", job), ("words", overrides), ("sweep", self.identity)):
            trial.set_user_attr(name, value)
        return self._asked(trial)

    def _asked(self, trial: optuna.Trial | FrozenTrial) -> AskedTrial:
        """Return a trial with its overrides, and with those that its run needs to report to it."""
        job: str = trial.user_attrs["job"]
        spec = {
            "id": trial._trial_id,  # noqa: SLF001 - the storage's key of the trial
            "number": trial.number,
            "storage": self.storage,
            "study": self.study_name,
            "pruner": self.settings.pruner,
            "pruner_options": dict(self.settings.pruner_options),
        }
        recorded = translate_overrides(trial.user_attrs["words"])
        if untrusted(recorded) or not job.isdecimal():
            msg = (
                f"study {self.study_name}: trial {trial.number} has the job {job!r} and the "
                f"overrides {recorded}, which no search writes; take another study"
            )
            raise SearchError(msg)
        extra = [f"sweep.trial={override_value(spec)}", f"hydra.sweep.subdir={job}"]
        return AskedTrial(trial.number, job, [*recorded, *extra])

    def tell(self, asked: Sequence[AskedTrial]) -> None:
        """Report the results in the trials' run folders to the study.

        An interrupted trial stays open.

        Args:
            asked: The trials that have been run.

        Raises:
            SearchError: If a run folder contains the run of another trial.
        """
        for trial in asked:
            job = read_job(self.sweep / trial.job, self.sweep)
            expected = dict(
                override.split("=", 1)
                for override in trial.overrides
                if not override.startswith(INTERNAL_OVERRIDES)
            )
            if (
                job.state in DONE
                and {key: job.overrides.get(key.lstrip("+")) for key in expected} != expected
            ):
                msg = (
                    f"{self.sweep / trial.job} contains the run of another trial; start a new sweep"
                )
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
        """Write search.json: all trials, the best ones, and the importance of the parameters."""
        record = search_record(self.study, self.settings, self.identity)
        RunFolder(self.sweep).write_json(SEARCH, record)
