"""The content that a run publishes to the dashboards, read from its folder."""

from collections.abc import Iterator
from typing import Any

from engine.kinds.base import results_of
from engine.kinds.contents import table_of_dicts
from lightning_modules.loggers.base import Content, FinalMetrics
from reports.record import read_run
from run_folders.run_folder import RunFolder


def run_contents(folder: RunFolder) -> Iterator[tuple[str, str, Content]]:
    """Yield each content of a finished run with its description and its name."""
    run = read_run(folder.path)
    yield "the metrics", "metrics", _summary(run.metrics)
    yield "the table plan", "plan", table_of_dicts(run.plan["rows"])
    if run.test:
        yield from results_of(run.metrics["kind"]).contents(run)
    files = {
        "plan": folder.path / "plan.json",
        "report": folder.report,
        "checkpoint": folder.best_checkpoint,
    }
    for name, path in files.items():
        if path.is_file():
            yield path.name, name, path


def _summary(metrics: dict[str, Any]) -> FinalMetrics:
    """Return all metrics, with the validation metrics also under the names of their curves."""
    stages = {
        stage: _numbers(metrics.get(stage) or {})
        for stage in ("test", "val", "seconds", "parameters")
    }
    summary = {
        f"{stage}/{key}": value
        for stage, found in stages.items()
        for key, value in found.items()
        if stage != "val"
    }
    summary |= {f"best/val/{key}": value for key, value in stages["val"].items()}
    best = metrics.get("best") or {}
    if best:
        summary |= {"best/epoch": best["epoch"], "best/score": best["score"]}
    return FinalMetrics(summary, {f"val/{key}": value for key, value in stages["val"].items()})


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {
        key: v
        for key, v in values.items()
        if isinstance(v, int | float) and not isinstance(v, bool)
    }
