"""Settings of Hydra itself: those that Thaw or Hydra would ignore are refused."""

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from engine.config.errors import ConfigError

# Key -> values that change nothing, and why others are refused.
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "hydra.output_subdir": (
        (None,),
        "Hydra's copy of the config would contain secrets; the run folder has config.yaml",
    ),
    "hydra.job.chdir": (
        (None, False),
        "relative paths are read from the folder in which train.py is started; "
        "hydra.run.dir chooses the run folder",
    ),
}
_SHELL = "thaw.train runs one job; type `thaw train ...` in a shell for"
_LOGGING = "in a Python program, the module logging decides what is shown; leave it out"
# Prefix of an override -> why a Python program cannot give it.
_OF_COMMAND_LINE = {
    "-": f"{_SHELL} flags, and for sweeps (-m)",
    "hydra.mode": f"{_SHELL} sweeps (-m)",
    "sweep.resume": f"{_SHELL} sweeps (-m)",
    "plan": f"{_SHELL} a plan without training",
    "hydra.verbose": _LOGGING,
    "hydra.job_logging": _LOGGING,
    "hydra/job_logging": _LOGGING,
    "hydra.hydra_logging": _LOGGING,
    "hydra/hydra_logging": _LOGGING,
}
# Keys that Hydra sets after it has read the overrides.
_SET_BY_HYDRA = re.compile(
    r"hydra\.(runtime|overrides|job\.(config_name|id|num|override_dirname))(\..*)?"
)
# Prefixes of keys that concern only a sweep; Hydra ignores them in a single run.
SWEEP_KEYS = (
    "hydra.sweep.",
    "hydra.sweeper.",
    "hydra.launcher.",
    "hydra/sweeper",
    "hydra/launcher",
)


def check_typed_overrides(overrides: Iterable[str]) -> None:
    """Check that no override removes or replaces Thaw's own settings of Hydra.

    Raises:
        ConfigError: If one does; Hydra would then choose the folders, and write secrets into them.
    """
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        whole = key in ("hydra", "hydra.callbacks")  # also a mapping that replaces the callback
        if whole or f"{key}.".startswith("hydra.callbacks.sweep."):
            msg = (
                f"{override}: Thaw's callback chooses the folders of runs and sweeps; leave this "
                f"out, and add your callbacks under other names"
            )
            raise ConfigError(msg)


def check_overrides_from_python(overrides: Iterable[Any]) -> None:
    """Check that overrides start one job, and set nothing that only a command line has.

    Raises:
        ConfigError: If one is a flag, or no text, or of no use in a Python program.
    """
    for override in overrides:
        if not isinstance(override, str):
            msg = f"received {override!r}; an override is a text such as 'seed=2'"
            raise ConfigError(msg)
        key = override.lstrip("+~").partition("=")[0]
        reason = next((why for start, why in _OF_COMMAND_LINE.items() if key.startswith(start)), "")
        if reason:
            msg = f"{override}: {reason}"
            raise ConfigError(msg)


def check_hydra_settings(config: DictConfig, *, sweeps: bool, child: bool = False) -> None:
    """Check that Thaw and Hydra honour every setting of Hydra.

    Args:
        config: The config with Hydra's node.
        sweeps: Whether this is a sweep.
        child: Whether a supervisor started this process, with the settings of its job.

    Raises:
        ConfigError: If a setting is of no use, or would break what Thaw promises.
    """
    for key, (allowed, reason) in _REFUSED.items():
        value = OmegaConf.select(config, key)
        if value not in allowed:
            msg = f"{key}={value}: {reason}; leave it out"
            raise ConfigError(msg)
    if "/" in config.hydra.job.name:
        msg = f"hydra.job.name={config.hydra.job.name}: a log file needs a name without /"
        raise ConfigError(msg)
    of_hydra: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    for override in map(str, of_hydra):
        fault = _override_fault(override.lstrip("+~").partition("=")[0], sweeps=sweeps)
        if fault and not child:
            msg = f"{override}{fault}"
            raise ConfigError(msg)


def _override_fault(key: str, *, sweeps: bool) -> str:
    """Return why an override of Hydra would have no effect; empty if it has one."""
    if sweeps and key.startswith("hydra.run."):
        return " names the folder of a single run; a sweep has hydra.sweep.dir"
    if not sweeps and key.startswith(SWEEP_KEYS):
        return " concerns only a sweep; add -m, or leave it out"
    if _SET_BY_HYDRA.fullmatch(key):
        return ": Hydra sets this key itself; leave it out"
    if _is_unknown(key):
        return ": Hydra has no such key; --cfg hydra shows its keys"
    return ""


def _is_unknown(key: str) -> bool:
    """Return whether no setting of Hydra has a key; mappings of Hydra take any key."""
    node: Any = HydraConf
    for part in key.split(".")[1:]:
        known = {field.name: field.type for field in fields(node)} if is_dataclass(node) else None
        if known is not None and part not in known:
            return True
        node = known[part] if known is not None else None
    return False
