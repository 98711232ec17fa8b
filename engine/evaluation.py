"""Test a finished run again, using only its folder."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from datamodules.reading.errors import DataError
from engine.build import data_from_checkpoint, model_from_checkpoint
from engine.checkpoints import load_checkpoint
from engine.config.recorded import read_config
from engine.library_warnings import filter_known
from engine.results import task_loss
from engine.trainer import build_trainer, progress_bar
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
    filter_known()
    cfg = read_config(folder.config)
    if data_dir is not None:
        cfg.data.data_dir = data_dir
    checkpoint = load_checkpoint(folder.best_checkpoint)
    try:
        datamodule = data_from_checkpoint(cfg, checkpoint)
    except DataError as error:
        error.add_note("if the data has moved, pass its folder with --data-dir")
        raise
    _check_data(folder, datamodule.describe()["test"])
    task = model_from_checkpoint(cfg, checkpoint)
    # The metrics do not depend on the number of devices. A profiler would write files.
    cfg.trainer.update({"devices": 1, "num_nodes": 1, "strategy": "auto", "profiler": None})
    trainer = build_trainer(cfg, folder, progress_bar(), [])
    trainer.test(task, datamodule=datamodule, verbose=False)
    metrics = task.results["test"].metrics
    different = [name for name, value in metrics.items() if recorded.get(name) != value]
    _print(metrics, recorded, trainer.num_devices)
    print(f"loss: {task_loss(task)}")
    print(
        "all metrics equal metrics.json" if not different else f"different: {', '.join(different)}"
    )
    return 1 if different else 0


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
