"""Defaults of the config that follow from other keys, as resolvers for interpolations."""

import os
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from engine.config.errors import ConfigError
from engine.config.places import resolve_target
from run_folders.kinds import KindError, kind_named, metric_of
from run_folders.metrics import LOSS

FROM_ENVIRONMENT = "thaw.env"


def register_defaults() -> None:
    """Register `thaw.monitor`, `thaw.mode`, `thaw.count`, `thaw.env` and `thaw.unless_env`.

    `thaw.monitor` imports the task, and so torch: `--cfg job --resolve` takes seconds.
    """
    OmegaConf.register_new_resolver("thaw.monitor", _monitor, replace=True)
    OmegaConf.register_new_resolver("thaw.mode", _mode, replace=True)
    OmegaConf.register_new_resolver("thaw.count", _count, replace=True)
    OmegaConf.register_new_resolver(FROM_ENVIRONMENT, from_environment, replace=True)
    OmegaConf.register_new_resolver("thaw.unless_env", _unless_set, replace=True)


def _monitor(target: Any) -> str:  # noqa: ANN401 - any value of a config
    """Return the validation metric that chooses the best checkpoint of a task.

    Args:
        target: The value of `model._target_`. A faulty one has the loss; validation reports it.
    """
    try:
        return f"val/{kind_named(resolve_target(target, 'model').kind).headline}"
    except (ConfigError, KindError, AttributeError):
        return f"val/{LOSS.name}"


def _mode(monitor: Any) -> str:  # noqa: ANN401 - any value of a config
    """Return whether a higher (`max`) or a lower (`min`) value of a metric is better."""
    return metric_of(str(monitor)).better


def from_environment(name: str, default: Any) -> Any:  # noqa: ANN401 - any value of a config
    """Return the value of an environment variable; the default if it is unset or empty."""
    return os.environ.get(name) or default


def _unless_set(name: str, value: Any) -> Any:  # noqa: ANN401 - any value of a config
    """Return a value if an environment variable is unset or empty, else None."""
    return None if os.environ.get(name) else value


def _count(values: Any) -> int | None:  # noqa: ANN401 - any value of a config
    """Return the length of a list; None for another value, which validation reports."""
    return len(values) if isinstance(values, Sequence) and not isinstance(values, str) else None
