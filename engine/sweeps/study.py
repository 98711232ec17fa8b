"""What a study is made of: where it is stored, what samples and prunes it, and how a run reports to it."""

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
    """A storage by an address that holds in every folder: a job may run in another one."""
    if storage.startswith(_SQLITE):
        return f"{_SQLITE}{Path(storage.removeprefix(_SQLITE)).expanduser().resolve()}"
    return storage if "://" in storage else str(Path(storage).expanduser().resolve())


def open_storage(storage: str) -> BaseStorage:
    """A database by its URL, anything else as the path of a file that several processes may write to."""
    if "://" in storage:
        return RDBStorage(storage)
    path = Path(storage).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


def make_sampler(name: str, options: Mapping[str, Any], seed: int) -> optuna.samplers.BaseSampler:
    """The sampler that a config names."""
    sampler: optuna.samplers.BaseSampler = _made(
        "sampler", SAMPLERS, name, {"seed": seed, **options}
    )
    return sampler


def make_pruner(
    name: str, options: Mapping[str, Any], max_epochs: int | None
) -> optuna.pruners.BasePruner:
    """The pruner that a config names; Hyperband is told how long a trial can be."""
    more = {"max_resource": max_epochs} if name == "hyperband" and max_epochs else {}
    pruner: optuna.pruners.BasePruner = _made("pruner", PRUNERS, name, {**more, **options})
    return pruner


def _made(what: str, kinds: Mapping[str, type[Any]], name: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if name not in kinds:
        msg = f"hydra.sweeper.{what}: received {name!r}; choose one of {', '.join(kinds)}"
        raise SearchError(msg)
    try:
        return kinds[name](**options)
    except (TypeError, ValueError) as error:
        msg = f"hydra.sweeper.{what}_options: {brief(error)}"
        raise SearchError(msg) from error


def reporter(spec: Mapping[str, Any], max_epochs: int | None) -> Callable[[int, float], bool]:
    """What a trial's run reports its monitored metric to.

    Args:
        spec: The config's `sweep.trial`.
        max_epochs: Of the run.

    Returns:
        A function of (epoch, metric) that says whether the trial is to be pruned.
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
