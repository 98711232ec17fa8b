"""The places of a config that name a class or a function, and what each place expects.

CONTRIBUTING.md has this table for readers; a test compares the two.
"""

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.config.errors import ConfigError
from run_folders.errors import near_names
from run_folders.own_packages import ENTRY_POINTS, VARIABLE, own_packages

_HEADS = "lightning_modules.networks.heads"
_GROUPS = "parameter groups have it: set model.lr, model.backbone_lr and model.weight_decay"
# The variable that says where the own packages are.
PACKAGE_PATH = "PYTHONPATH"
# Arguments of the trainer that Thaw sets itself or cannot honour -> what to use. It passes all
# others on to Lightning; `engine/config/validation/` and `engine/trainer.py` check their values.
_TRAINER = {
    "callbacks": "choose callbacks=..., or set +callbacks.NAME._target_=...",
    "logger": "choose logger=wandb, tensorboard, mlflow or none",
    "plugins": "trainer.precision and trainer.strategy choose them; checkpoints are Thaw's own",
    "default_root_dir": "hydra.run.dir is the run folder, paths.runs_dir the folder of all runs",
    "enable_model_summary": "every run prints its plan instead; plan=true prints only that",
    "enable_checkpointing": "every run saves its best and its last epoch, which test and resume",
    "enable_progress_bar": "it is shown if stderr is a terminal; 2>FILE leaves it out",
    "fast_dev_run": "it has no checkpoint to test; choose debug=fast",
    "barebones": "a run needs its checkpoints, its history and its metrics",
    "limit_predict_batches": "scripts/predict.py predicts all of its input; shorten that",
    "reload_dataloaders_every_n_epochs": "the data is read once, and each epoch has a new order",
    "enable_autolog_hparams": "loggers receive the whole config; logger=none switches them off",
    "model_registry": "logger.wandb.log_checkpoint or logger.mlflow.log_model uploads the best one",
}


@dataclass(frozen=True)
class Place:
    """A place of the config.

    Attributes:
        base: Dotted name of the base class; empty for a function.
        modules: The modules whose names may be named here, with their submodules.
        defined_in: The modules that may define what is named; empty for `modules`.
        own_packages: Whether a class of an own package may be named.
        injected: Arguments that the engine passes.
        refused: Key -> the reason why it may not be set.
        deferred: Whether the engine builds the object later, with the injected arguments.
        exact: Whether only the base class itself may be named.
    """

    base: str
    modules: tuple[str, ...]
    defined_in: tuple[str, ...] = ()
    own_packages: bool = True
    injected: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    deferred: bool = False
    exact: bool = False


PLACES = {
    "data": Place("datamodules.base.TransferDataModule", ("datamodules",)),
    "model": Place("lightning_modules.base.Task", ("lightning_modules",)),
    "depth": Place("engine.depth.study.DepthStudy", ("engine.depth",)),
    "model.backbone": Place("torch.nn.Module", ()),
    "model.head": Place("torch.nn.Module", (_HEADS,), injected=("width", "outputs"), deferred=True),
    "model.loss": Place(
        "torch.nn.Module",
        ("lightning_modules.losses", "torch.nn", "timm.loss"),
        defined_in=("lightning_modules.losses", "torch.nn.modules.loss", "timm.loss"),
        refused=dict.fromkeys(("reduction", "size_average", "reduce"), "a task needs the mean"),
    ),
    "model.optimizer": Place(
        "torch.optim.Optimizer",
        ("lightning_modules.optim", "torch.optim", "timm.optim"),
        injected=("params",),
        refused={"lr": _GROUPS, "weight_decay": _GROUPS},
        deferred=True,
    ),
    "model.schedule": Place(
        "",
        ("lightning_modules.optim.schedules",),
        injected=("step", "total", "optimizer", "steps_per_epoch"),
        deferred=True,
    ),
    "callbacks.*": Place(
        "lightning.pytorch.callbacks.Callback",
        ("lightning_modules.callbacks", "lightning.pytorch.callbacks"),
    ),
    "logger.*": Place(
        "lightning.pytorch.loggers.Logger",
        ("lightning_modules.loggers", "lightning.pytorch.loggers"),
    ),
    "trainer": Place(
        "lightning.Trainer",
        ("lightning.Trainer",),
        own_packages=False,
        refused=_TRAINER,
        exact=True,
    ),
    "trainer.strategy": Place(
        "lightning.pytorch.strategies.Strategy",
        ("lightning.pytorch.strategies",),
        own_packages=False,
    ),
    "trainer.profiler": Place(
        "lightning.pytorch.profilers.Profiler",
        ("lightning.pytorch.profilers",),
        own_packages=False,
    ),
}


def place_of(path: str) -> Place | None:
    """Return the place at a dotted key; None if no object is expected there."""
    parent, _, _ = path.partition(".")
    wildcard = PLACES.get(f"{parent}.*") if path.count(".") == 1 else None
    return PLACES.get(path, wildcard)


def resolve_target(name: object, path: str) -> Any:  # noqa: ANN401 - a class, or a function
    """Import what a `_target_` names, if its place expects it.

    The module's name is checked before the module is imported. What the module defines is checked
    before anything is called.

    Args:
        name: A dotted name.
        path: The dotted key of the node.

    Returns:
        The class, or for a schedule the function.

    Raises:
        ConfigError: If there is no such class, or the place does not expect it.
    """
    place = place_of(path)
    if place is None:
        msg = f"received {name!r}; no object is expected here"
        raise ConfigError(msg)
    if not isinstance(name, str):
        msg = f"received {name!r}; a dotted name is needed"
        raise ConfigError(msg)
    own = own_packages() if place.own_packages else []
    module_name, _, attribute = name.rpartition(".")
    private = any(part.startswith("_") for part in name.split("."))
    named = name == place.base if place.exact else _inside(module_name, (*place.modules, *own))
    if private or not named:
        raise ConfigError(_not_expected(name, place, own))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        foreign = _inside(module_name, tuple(own))
        advice = f"; install it, or set {PACKAGE_PATH} to the folder that contains it"
        msg = f"received {name!r}; cannot import {module_name}: {error}{advice if foreign else ''}"
        raise ConfigError(msg) from error
    found = getattr(module, attribute, None)
    if found is None:
        near = near_names(attribute, dir(module))
        suggestion = f"; did you mean {' or '.join(near)}?" if near else ""
        msg = f"received {name!r}; {module_name} has no {attribute}{suggestion}"
        raise ConfigError(msg)
    defined = (*(place.defined_in or place.modules), *own)
    if not place.exact and not _inside(_module_of(found), defined):
        raise ConfigError(_not_expected(name, place, own))
    fault = _kind_fault(found, place)
    if fault:
        msg = f"received {name!r}, which {fault}"
        raise ConfigError(msg)
    return found


def injected_into(path: str) -> tuple[str, ...]:
    """Return the arguments that the engine passes to what a place names."""
    place = place_of(path)
    return place.injected if place else ()


def _inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def _module_of(found: object) -> str:
    return str(getattr(found, "__module__", ""))


def _not_expected(name: str, place: Place, own: list[str]) -> str:
    known = [*place.modules, *own]
    allowed = f"only names of {', '.join(known)} are allowed here" if known else ""
    package = name.partition(".")[0]
    foreign = package not in sys.stdlib_module_names and not any(
        _inside(module, (package,)) for other in PLACES.values() for module in other.modules
    )
    advice = (
        f"if you trust the package {package}, install it with an entry point of {ENTRY_POINTS}, "
        f"or set {VARIABLE}={package} and {PACKAGE_PATH} to the folder that contains it"
        if place.own_packages and foreign
        else ""
    )
    return "; ".join(part for part in (f"received {name!r}", allowed, advice) if part)


def _kind_fault(found: Any, place: Place) -> str:  # noqa: ANN401 - any attribute of a module
    """Return why an object is not what a place expects; empty if it is."""
    if not place.base:
        return "" if inspect.isfunction(found) else "is no function"
    if not inspect.isclass(found):
        return "is no class"
    module, _, name = place.base.rpartition(".")
    base = getattr(importlib.import_module(module), name)
    if found is not base if place.exact else not issubclass(found, base):
        return f"is not a {place.base}"
    missing = _missing_methods(found)
    return f"is abstract: it does not define {missing}" if missing else ""


def _missing_methods(cls: type) -> str:
    """Return the abstract methods of a class; Lightning's have no metaclass that checks them."""
    members = [member for each in cls.__mro__ for member in vars(each).items()]
    names = {name for name, value in members if getattr(value, "__isabstractmethod__", False)}
    missing = [n for n in names if getattr(getattr(cls, n), "__isabstractmethod__", False)]
    return ", ".join(sorted(missing))
