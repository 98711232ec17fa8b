"""Write the config of a run, and read that of an earlier run."""

from pathlib import Path
from typing import Any, TypedDict

from omegaconf import DictConfig, OmegaConf

from engine.config.composing.composition import escaped_values
from engine.config.errors import ConfigError
from engine.config.objects import class_count_faults, object_faults
from engine.config.places import PACKAGE_PATH, resolve_target
from engine.config.precision import full_name
from engine.config.redaction import redacted
from engine.config.signatures import parameters_of
from engine.old_names import translate_config
from run_folders.errors import brief
from run_folders.files import write_text
from run_folders.run_folder import RunFolderError
from run_folders.untrusted import damaged, read_yaml_text
from run_folders.value_types import type_fault

_ADVICE = "restore it, or train again"


class _Recorded(TypedDict, total=False):
    """The parts of a config that are read from a run folder."""

    model: dict[str, Any]
    data: dict[str, Any]
    trainer: dict[str, Any]


# Format of config.yaml. Version 0.1 wrote no number.
FORMAT = 2


def write_config(path: Path, cfg: DictConfig) -> None:
    """Write a settled config with its format number and without secrets."""
    write_text(path, f"format: {FORMAT}\n{OmegaConf.to_yaml(redacted(cfg))}")


def read_config(path: Path, *, to_train: bool = False) -> DictConfig:
    """Read a run's config.yaml, and translate names of version 0.1 with `translate_config`.

    Interpolations stay as text, so that a run folder of someone else reads no environment variable.

    Args:
        path: The file.
        to_train: Whether the run is to be resumed, not only evaluated or used for prediction.

    Raises:
        DamagedFileError: If the file is missing or damaged.
        RunFolderError: If it has no keys, or is of a newer version of Thaw.
    """
    text = read_yaml_text(path, _ADVICE)
    try:
        plain: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except Exception as error:  # whatever OmegaConf and the YAML parser raise
        raise damaged(path, brief(error), _ADVICE) from error
    if not isinstance(plain, dict) or not plain:
        msg = f"{path} has no keys; {_ADVICE}"
        raise RunFolderError(msg)
    fault = type_fault(plain, _Recorded)
    if fault:
        raise damaged(path, fault, _ADVICE)
    written = plain.pop("format", 1)
    if written not in range(1, FORMAT + 1):
        msg = f"{path} has the format {written!r}; this version of Thaw reads 1 to {FORMAT}"
        raise RunFolderError(msg)
    cfg: DictConfig = OmegaConf.create(escaped_values(plain))
    if written == 1:
        translate_config(cfg, to_train=to_train)
    if OmegaConf.select(cfg, "trainer.precision") is not None:
        cfg.trainer.precision = full_name(cfg.trainer.precision)
    return cfg


def read_trained_config(path: Path) -> DictConfig:
    """Read the config of a run that is to be evaluated or used for prediction.

    Missing keys of the datamodule get the defaults of its signature.

    Args:
        path: The file.

    Raises:
        DamagedFileError: If the file is missing or damaged.
        RunFolderError: If it has no keys, or is of a newer version of Thaw.
        ConfigError: If it names no class where one is needed, or one that may not be named, or the
            class rejects the keys or values.
    """
    cfg = read_config(path)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    nodes = {name: plain.get(name, {}) for name in _Recorded.__annotations__}
    absent = [(name, "has no _target_") for name, node in nodes.items() if "_target_" not in node]
    faults = absent or [*object_faults(nodes), *class_count_faults(plain)]
    if faults:
        fault = next((each for each in faults if each[0].endswith("_target_")), faults[0])
        # The fault of an own package that is not found says itself what to do.
        advice = "" if PACKAGE_PATH in fault[1] else f"; {_ADVICE}"
        msg = f"{path}: {': '.join(fault)}{advice}"
        raise ConfigError(msg)
    for name, default in default_values(cfg, "data").items():
        if name not in cfg.data:
            cfg.data[name] = default
    return cfg


def default_values(cfg: DictConfig, group: str) -> dict[str, Any]:
    """Return the defaults of the class that a group of the config builds.

    A recorded config lacks the keys that are newer than it; the run had their defaults.
    """
    parameters = parameters_of(resolve_target(cfg[group]._target_, group))
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {
        name: default
        for name, default in defaults.items()
        if isinstance(default, str | int | float | list | None)
    }
