"""What run folders of version 0.1 do not state. `engine.old_names` translates their configs."""

from collections.abc import Mapping
from typing import Any


def kind_of_metrics(metrics: Mapping[str, Any]) -> str | None:
    """Return the kind of task of a metrics.json that names none; None if it has no metrics."""
    stages = [metrics.get(stage) or {} for stage in ("test", "val")]
    if any("miou" in stage for stage in stages):
        return "segmentation"
    return "classification" if any("acc" in stage for stage in stages) else None
