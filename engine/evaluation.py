"""Test a finished run again, or on other labelled data, using only its folder."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from datamodules.base import TransferDataModule
from datamodules.reading.errors import DataError
from engine.build import data_from_checkpoint, model_from_checkpoint
from engine.checkpoints import load_checkpoint
from engine.config.recorded import read_config
from engine.kinds.base import results_of
from engine.library_warnings import filter_known
from engine.results import task_loss, write_parquet
from engine.trainer import build_trainer, progress_bar
from lightning_modules.base import Task
from run_folders.kinds import kind_named
from run_folders.run_folder import RunFolder, RunFolderError


def evaluate(path: Path, data_dir: str | None) -> int:
    """Test a run's best checkpoint on its test data and compare the metrics with metrics.json.

    Args:
        path: The run folder.
        data_dir: The folder of the data; None for the one in config.yaml.

    Returns:
        0 if every metric is the same to the last digit, else 1.

    Raises:
        RunFolderError: If the folder has no tested run, or the test data has changed.
    """
    folder = RunFolder(path)
    recorded = folder.read_json("metrics.json").get("test")
    if recorded is None:
        tested = (folder.path / "metrics.json").exists()
        why = (
            "it ran with test=false; run it again with test=true"
            if tested
            else "it has no metrics.json; finish it with ckpt_path=last first"
        )
        msg = f"{folder.path} has no test metrics: {why}"
        raise RunFolderError(msg)
    cfg, checkpoint = _opened(folder)
    if data_dir is not None:
        cfg.data.data_dir = data_dir
    try:
        datamodule = data_from_checkpoint(cfg, checkpoint)
    except DataError as error:
        error.add_note("if the data has moved, pass its folder with --data-dir")
        raise
    _check_data(folder, datamodule.describe()["test"])
    task, devices = _tested(cfg, folder, checkpoint, datamodule)
    metrics = task.results["test"].metrics
    different = [name for name, value in metrics.items() if recorded.get(name) != value]
    _print(metrics, recorded, devices)
    print(f"loss: {task_loss(task)}")
    print(
        "all metrics equal metrics.json" if not different else f"different: {', '.join(different)}"
    )
    return 1 if different else 0


def evaluate_on(path: Path, data: Path) -> Path:
    """Test a run's best checkpoint on other labelled data, and print the metrics.

    The result is written to the run folder: `evaluations/<name>.json` with the metrics, the number
    of samples and the fingerprint of the data, and `evaluations/<name>.parquet` with the
    predictions.

    Args:
        path: The run folder.
        data: A table or folder in the format of the run's test data, with the same columns.

    Returns:
        The path of the JSON file.

    Raises:
        RunFolderError: If the folder has no usable run.
        DataError: If the data cannot be read, or has labels that the run does not know.
    """
    folder = RunFolder(path)
    if not data.exists():
        msg = f"--data {data}: no such file or folder"
        raise DataError(msg)
    cfg, checkpoint = _opened(folder)
    datamodule = data_from_checkpoint(cfg, checkpoint, data.resolve())
    task, _ = _tested(cfg, folder, checkpoint, datamodule)
    results, result = results_of(task.kind), task.results["test"]
    name = data.resolve().stem
    facts = {"data": str(data.resolve()), **datamodule.describe()["test"]}
    record = {"kind": task.kind, **facts, **results.record(result, datamodule)}
    place = f"evaluations/{name}"
    folder.write_json(f"{place}.json", record)
    table = results.predictions(result, datamodule, "test")
    write_parquet(table, folder.path / f"{place}.parquet")
    shown = Table("metric", "value", title=f"{data.name}, n = {result.count}")
    for metric in kind_named(task.kind).metrics:
        if metric.name in result.metrics:
            shown.add_row(metric.title, metric.text(result.metrics[metric.name]))
    Console().print(shown)
    if datamodule.bad_rows:
        print(f"{len(datamodule.bad_rows)} bad rows were left out")
    print(folder.path / f"{place}.json")
    return folder.path / f"{place}.json"


def _opened(folder: RunFolder) -> tuple[DictConfig, dict[str, Any]]:
    """Return a run's config and its best checkpoint."""
    filter_known()
    if not folder.config.is_file():
        msg = f"{folder.path} is no run folder: it has no config.yaml"
        raise RunFolderError(msg)
    return read_config(folder.config), load_checkpoint(folder.best_checkpoint)


def _tested(
    cfg: DictConfig,
    folder: RunFolder,
    checkpoint: dict[str, Any],
    datamodule: TransferDataModule[Any],
) -> tuple[Task, int]:
    """Test a checkpoint; return the task with its results, and the number of devices."""
    task = model_from_checkpoint(cfg, checkpoint)
    task.logs_metrics = False
    # The metrics do not depend on the number of devices. A profiler would write files.
    cfg.trainer.update({"devices": 1, "num_nodes": 1, "strategy": "auto", "profiler": None})
    trainer = build_trainer(cfg, folder, progress_bar(), [])
    trainer.test(task, datamodule=datamodule, verbose=False)
    return task, trainer.num_devices


def _check_data(folder: RunFolder, facts: dict[str, Any]) -> None:
    before = folder.read_json("provenance.json")["data"]["test"]
    if before["sha256"] != facts["sha256"]:
        msg = (
            f"the test split is not the one that {folder.path} was tested on "
            f"({before['rows']} rows then, {facts['rows']} now, or other content); "
            f"pass the folder of the original data with --data-dir"
        )
        raise RunFolderError(msg)


def _print(metrics: dict[str, float | None], recorded: dict[str, Any], devices: int) -> None:
    table = Table(
        "metric", "now", "metrics.json", title=f"test, n = {recorded['n']}, {devices} device(s)"
    )
    for name, value in metrics.items():
        table.add_row(name, repr(value), repr(recorded.get(name)))
    Console().print(table)
