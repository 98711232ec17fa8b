"""The default of `monitor`, which follows from the kind of task."""

from typing import Any

from engine.config.errors import ConfigError
from engine.config.places import resolve_target
from run_folders.kinds import KindError, kind_named
from run_folders.metrics import LOSS


def default_monitor(target: Any) -> str:  # noqa: ANN401 - any value of a config
    """Return the validation metric that chooses the best checkpoint of a task.

    Args:
        target: The value of `model._target_`. A faulty one, which validation reports, has the loss.
    """
    try:
        return f"val/{kind_named(resolve_target(target, 'model').kind).headline}"
    except (ConfigError, KindError, AttributeError):
        return f"val/{LOSS.name}"
