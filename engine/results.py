"""Write the results of a finished stage to the run folder, and print a summary."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from datamodules.base import TransferDataModule
from datamodules.segmentation import SegmentationDataModule
from engine.build import RunObjects
from engine.segmentation_results import segmentation_record, write_segmentation
from engine.trained_run import TrainedRun
from lightning_modules.base import Task
from lightning_modules.metrics.classification import ClassificationResult, predicted
from lightning_modules.metrics.segmentation import SegmentationResult
from run_folders.files import write_atomically
from run_folders.metrics import metric_text, shown_in
from run_folders.run_folder import RunFolder

PICTURED_MISTAKES = 300
PICTURED_OF_CLASS = 8
PICTURED_OF_ALL_CLASSES = 400


def write_results(cfg: DictConfig, folder: RunFolder, objects: RunObjects) -> dict[str, Any]:
    """Write the test predictions, and return the test part of metrics.json."""
    result, datamodule = objects.task.results["test"], objects.datamodule
    if isinstance(result, SegmentationResult) and isinstance(datamodule, SegmentationDataModule):
        device = objects.trainer.strategy.root_device
        run = TrainedRun(cfg, objects.task.to(device).eval(), datamodule.state_dict(), device)
        write_segmentation(folder, result, datamodule, run)
        return segmentation_record(result, datamodule)
    assert isinstance(result, ClassificationResult)  # noqa: S101 - tells the type checker
    write_predictions(folder, result, datamodule)
    return stage_record(result, datamodule.class_names)


def stage_record(result: ClassificationResult, class_names: Sequence[str]) -> dict[str, Any]:
    """Return one stage's part of metrics.json.

    Args:
        result: The results of the stage.
        class_names: Names of class 0, 1, ...

    Returns:
        The metrics, the number of samples `n`, the per-class table, the confusion matrix (a row per
        label) and the calibration bins.
    """
    per_class = {name: metrics for name, metrics in zip(class_names, result.classes, strict=True)}
    return {
        "n": result.count,
        **result.metrics,
        "classes": list(class_names),
        "per_class": per_class,
        "confusion_matrix": result.confusion,
        "calibration": result.calibration,
    }


def write_predictions(
    folder: RunFolder, result: ClassificationResult, datamodule: TransferDataModule[Any]
) -> None:
    """Write predictions/test.parquet, and small pictures of some samples of image data.

    The predictions have one row per sample, ordered by index.
    """
    if result.samples is None:
        return
    index, probabilities, labels = result.samples
    names = datamodule.class_names
    _, predictions = predicted(probabilities)
    column, values = datamodule.reference("test", index.tolist())
    table = {
        "index": index.numpy(),
        "label": [names[i] for i in labels.tolist()],
        "prediction": [names[i] for i in predictions.tolist()],
        **{f"probability_{name}": probabilities[:, k].numpy() for k, name in enumerate(names)},
        column: values,
    }
    write_atomically(
        folder.predictions, lambda path: pd.DataFrame(table).to_parquet(path, index=False)
    )
    chosen = _pictured(index, probabilities, predictions, labels, len(names))
    pictures = datamodule.thumbnails("test", chosen)
    if pictures:
        shown = pd.DataFrame({"index": list(pictures), "picture": list(pictures.values())})
        write_atomically(folder.test_images, lambda path: shown.to_parquet(path, index=False))


def _pictured(
    index: Tensor, probabilities: Tensor, predictions: Tensor, labels: Tensor, num_classes: int
) -> list[int]:
    """Return the indices of the samples whose pictures the report shows.

    They are the most confident mistakes, and the first samples of each class.
    """
    wrong = (predictions != labels).nonzero()[:, 0]
    confidence = probabilities[wrong].max(dim=1).values if len(wrong) else torch.empty(0)
    order = torch.argsort(confidence, descending=True, stable=True)[:PICTURED_MISTAKES]
    chosen = wrong[order].tolist()
    each = max(1, min(PICTURED_OF_CLASS, PICTURED_OF_ALL_CLASSES // num_classes))
    for k in range(num_classes):
        chosen += (labels == k).nonzero()[:each, 0].tolist()
    return list(dict.fromkeys(index[chosen].tolist()))


def val_metrics(row: dict[str, str]) -> dict[str, float | None]:
    """Return the validation metrics of one row of the history, and `n`, the number of samples."""
    values = {
        key.removeprefix("val/"): value for key, value in row.items() if key.startswith("val/")
    }
    count = int(values.pop("n"))
    return {"n": count, **{key: float(value) if value else None for key, value in values.items()}}


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
    epochs = [float(row["train/seconds"]) for row in history]
    fit = sum(float(row["seconds"]) for row in history)
    mean = round(sum(epochs) / len(epochs), 3) if epochs else None
    return {
        "fit": round(fit, 3),
        "test": test and round(test, 3),
        "epoch_mean": mean,
        "features": features and round(features, 3),
    }


def print_results(metrics: dict[str, Any], folder: RunFolder, console: Console) -> None:
    """Print the summary table at the end of a run."""
    stages = {stage: metrics[stage] for stage in ("val", "test") if metrics.get(stage)}
    shown = [
        metric
        for metric in shown_in("console")
        if any(metric.name in found for found in stages.values())
    ]
    table = Table("", *(metric.name for metric in shown), "n")
    for stage, found in stages.items():
        values = [metric.text(found.get(metric.name)) for metric in shown]
        table.add_row(stage, *values, str(found["n"]))
    console.print(table)
    best = metrics["best"]
    if best:
        console.print(
            f"best epoch: {best['epoch']} "
            f"({best['monitor']} {metric_text(best['score'], best['monitor'])})",
            highlight=False,
        )
    console.print(f"report: {folder.report}", highlight=False, soft_wrap=True)
