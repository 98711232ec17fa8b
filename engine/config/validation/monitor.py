"""Check the metrics that a config monitors, and the directions in which they are better."""

from collections.abc import Iterator
from typing import Any

from engine.config.errors import ConfigError
from engine.config.places import resolve_target
from engine.config.signatures import Fault
from run_folders.kinds import metric_of
from run_folders.nested import nodes


def mode_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check each `mode`: that of the best checkpoint, of the callbacks and of the schedule."""
    yield from _mode_faults(values, "")
    for path, node in nodes(values):
        if path.startswith(("callbacks.", "model.schedule")) and isinstance(node, dict):
            yield from _mode_faults(node, f"{path}.")


def _mode_faults(node: dict[str, Any], prefix: str) -> Iterator[Fault]:
    """Check that `mode` is the direction in which the metric `monitor` is better."""
    if "monitor" not in node or "mode" not in node:
        return
    monitor, mode = node["monitor"], node["mode"]
    better = metric_of(str(monitor)).better
    if mode not in ("min", "max"):
        yield f"{prefix}mode", f"received {mode!r}; choose min or max"
    elif mode != better:
        direction = "lower" if better == "min" else "higher"
        fault = f"received {mode!r}; {direction} values of {monitor} are better"
        yield f"{prefix}mode", f"{fault}: leave it out"


def monitor_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that the best checkpoint is chosen by a validation metric of the task."""
    known = _metrics(values.get("model"))
    monitor = values.get("monitor")
    if known and monitor not in known:
        advice = f"the best checkpoint is chosen on validation, by one of {', '.join(known)}"
        yield "monitor", f"received {monitor!r}; {advice}"


def _metrics(model: Any) -> list[str]:  # noqa: ANN401 - any value of a config
    """Return the validation metrics of a task; an empty list if its node is itself faulty."""
    try:
        task = resolve_target(model["_target_"], "model")
    except (ConfigError, KeyError, TypeError):
        return []
    return [f"val/{name}" for name in task.metric_names(model)]
