"""The parts of an Optuna study: storage, sampler, pruner, and the reports of a trial's run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from engine.sweeps.space import SearchError
from run_folders.errors import brief

optuna.logging.set_verbosity(optuna.logging.WARNING)

_SQLITE = "sqlite:///"
SAMPLERS: dict[str, type[optuna.samplers.BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "qmc": optuna.samplers.QMCSampler,
    "gp": optuna.samplers.GPSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
}
PRUNERS: dict[str, type[optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "none": optuna.pruners.NopPruner,
}


def resolved(storage: str) -> str:
    """Return a storage's address with an absolute path: a job may run in another working folder."""
    if storage.startswith(_SQLITE):
        return f"{_SQLITE}{Path(storage.removeprefix(_SQLITE)).expanduser().resolve()}"
    return storage if "://" in storage else str(Path(storage).expanduser().resolve())


def open_storage(storage: str) -> BaseStorage:
    """Open a storage.

    Args:
        storage: The URL of a database, or the path of a journal file. Several processes may write
            to the file at the same time.
    """
    if "://" in storage:
        return RDBStorage(storage)
    path = Path(storage).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


def make_sampler(name: str, options: Mapping[str, Any], seed: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of this name.

    Raises:
        SearchError: If the name or an option is unknown.
    """
    sampler: optuna.samplers.BaseSampler = _make(
        "sampler", SAMPLERS, name, {"seed": seed, **options}
    )
    return sampler


def make_pruner(
    name: str, options: Mapping[str, Any], max_epochs: int | None
) -> optuna.pruners.BasePruner:
    """Return the pruner of this name; Hyperband gets `max_epochs` as its `max_resource`.

    Raises:
        SearchError: If the name or an option is unknown.
    """
    defaults = {"max_resource": max_epochs} if name == "hyperband" and (max_epochs or 0) > 0 else {}
    pruner: optuna.pruners.BasePruner = _make("pruner", PRUNERS, name, {**defaults, **options})
    return pruner


def _make(
    kind: str, classes: Mapping[str, type[Any]], name: str, options: Mapping[str, Any]
) -> Any:  # noqa: ANN401
    if name not in classes:
        msg = f"hydra.sweeper.{kind}: received {name!r}; choose one of {', '.join(classes)}"
        raise SearchError(msg)
    try:
        return classes[name](**options)
    except (TypeError, ValueError) as error:
        msg = f"hydra.sweeper.{kind}_options: {brief(error)}"
        raise SearchError(msg) from error


def reporter(spec: Mapping[str, Any], max_epochs: int | None) -> Callable[[int, float], bool]:
    """Return a function with which a run reports its monitored metric to the study.

    Args:
        spec: The config's `sweep.trial`.
        max_epochs: The run's `trainer.max_epochs`.

    Returns:
        A function of (epoch, metric) that returns whether to prune the trial.
    """
    pruner = make_pruner(spec["pruner"], spec["pruner_options"], max_epochs)
    study = optuna.load_study(
        study_name=spec["study"],
        storage=open_storage(spec["storage"]),
        pruner=pruner,
        sampler=optuna.samplers.RandomSampler(),
    )
    trial = optuna.trial.Trial(study, spec["id"])

    def report(epoch: int, metric: float) -> bool:
        trial.report(metric, epoch)
        return trial.should_prune()

    return report
