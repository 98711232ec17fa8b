"""Write the results of a finished stage to the run folder, and print a summary."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from engine.build import RunObjects
from engine.kinds.base import results_of
from engine.trained_run import TrainedRun
from lightning_modules.base import Task
from lightning_modules.callbacks.epoch_timer import EpochTimer
from run_folders.errors import one_line
from run_folders.files import write_atomically
from run_folders.kinds import metric_text, shown_in
from run_folders.memory import peak_memory
from run_folders.run_folder import RunFolder


def write_predictions(folder: RunFolder, objects: RunObjects, split: str) -> None:
    """Write predictions/val.parquet or predictions/test.parquet from the latest result."""
    results = results_of(objects.task.kind)
    table = results.predictions(objects.task.results[split], objects.datamodule, split)
    write_parquet(table, folder.predictions_of(split))


def write_test_results(cfg: DictConfig, folder: RunFolder, objects: RunObjects) -> dict[str, Any]:
    """Write test predictions and pictures, and return the test part of metrics.json."""
    write_predictions(folder, objects, "test")
    results, datamodule = results_of(objects.task.kind), objects.datamodule
    result, device = objects.task.results["test"], objects.trainer.strategy.root_device
    run = TrainedRun(cfg, objects.task.to(device).eval(), datamodule.state_dict(), device)
    write_parquet(results.pictures(result, datamodule, run), folder.test_images)
    return results.record(result, datamodule)


def write_parquet(table: pd.DataFrame | None, path: Path) -> None:
    """Write a table atomically; nothing if there is none."""
    if table is not None:
        write_atomically(path, lambda part: table.to_parquet(part, index=False))


def task_loss(task: Task) -> str:
    """Return the dotted name of the class whose values are reported as the loss."""
    return f"{type(task.loss).__module__}.{type(task.loss).__qualname__}"


def count_parameters(task: Task) -> dict[str, int]:
    """Count all parameters of the network, and those that train in some epoch."""
    sizes = {name: parameter.numel() for name, parameter in task.network.named_parameters()}
    trainable = sum(
        size for name, size in sizes.items() if task.freezing.first_epoch(name) is not None
    )
    return {"total": sum(sizes.values()), "trainable": trainable}


def seconds(
    history: list[dict[str, str]], test: float | None, features: float | None
) -> dict[str, float | None]:
    """Return the durations of fit, test and storing features, and the mean training time per epoch.

    All are in seconds, and None if the run had no such part.
    """
    epochs = [float(row["train/seconds"]) for row in history if row.get("train/seconds")]
    fit = sum(float(row.get("seconds") or 0) for row in history)
    mean = round(sum(epochs) / len(epochs), 3) if epochs else None
    return {
        "fit": round(fit, 3),
        "test": test and round(test, 3),
        "epoch_mean": mean,
        "features": features and round(features, 3),
    }


def measured(
    folder: RunFolder, objects: RunObjects, times: dict[str, Any], start: float
) -> dict[str, Any]:
    """Return the parts `seconds` and `bytes` of metrics.json.

    Args:
        folder: The run folder.
        objects: The run's objects.
        times: What `seconds` returned.
        start: When the run started, by `time.perf_counter`.
    """
    callbacks = objects.trainer.callbacks  # type: ignore[attr-defined]
    steps = next((c.steps for c in callbacks if isinstance(c, EpochTimer)), [])
    # A ladder's checkpoints are in the folders of its rungs.
    places = folder.path.rglob("checkpoints")
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return {
        "seconds": {
            **times,
            "steps": [round(step, 6) for step in steps],
            "total": round(time.perf_counter() - start, 3),
        },
        "bytes": {
            "host": peak_memory(),
            "device": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            "checkpoints": sum(path.stat().st_size for path in files),
        },
    }


def print_results(metrics: dict[str, Any], folder: RunFolder, console: Console) -> None:
    """Print the summary table at the end of a run."""
    stages = {stage: metrics[stage] for stage in ("val", "test") if metrics.get(stage)}
    shown = [
        metric
        for metric in shown_in("console", metrics["kind"])
        if any(metric.name in found for found in stages.values())
    ]
    table = Table("", *(metric.name for metric in shown), "n")
    for stage, found in stages.items():
        values = [
            metric.text(found[metric.name]) if metric.name in found else "-" for metric in shown
        ]
        table.add_row(stage, *values, str(found["n"]))
    console.print(table)
    best = metrics["best"]
    if best:
        console.print(
            f"best epoch: {best['epoch']} "
            f"({best['monitor']} {metric_text(best['score'], best['monitor'])})",
            highlight=False,
        )
    console.print(f"report: {one_line(folder.report)}", highlight=False, soft_wrap=True)
