"""Test a finished run again, or on other labelled data, using only its folder."""

import logging
import os
import re
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

from omegaconf import DictConfig
from rich.table import Table

from datamodules.base import TransferDataModule, fingerprint
from datamodules.reading.errors import DataError
from engine.build import check_input_limits
from engine.checkpoints import load_checkpoint
from engine.config.places import PLACES
from engine.config.recorded import read_trained_config
from engine.kinds.base import results_of
from engine.processes.determinism import keeping_determinism
from engine.processes.library_warnings import filter_known
from engine.processes.terminal import console
from engine.results import task_loss, write_parquet
from engine.trained_run import (
    data_from_checkpoint,
    data_state,
    model_from_checkpoint,
    restored_data,
    set_merged_tokens,
)
from engine.trainer import build_trainer, naming_refusals, progress_bar
from lightning_modules.base import Task
from lightning_modules.networks.tokens.merging import MergedTokens
from run_folders.errors import one_line
from run_folders.kinds import kind_named, metric_text
from run_folders.run_folder import RunFolder, RunFolderError

log = logging.getLogger(__name__)


class Tested(NamedTuple):
    """A test of a checkpoint.

    Attributes:
        task: The task with its results.
        devices: Number of devices.
        seconds: Duration of the test.
    """

    task: Task
    devices: int
    seconds: float


def evaluate(path: Path, data_dir: str | None, merge_tokens: MergedTokens | None = None) -> int:
    """Test a run's best checkpoint on its test data and compare the metrics with metrics.json.

    Args:
        path: The run folder.
        data_dir: The folder of the datasets, or the run's dataset itself where that was renamed;
            None for the one in config.yaml.
        merge_tokens: How blocks of a vision transformer merge tokens, as `model.merge_tokens`; None
            takes that of the training.

    Returns:
        0 if every metric is the same to the last digit, or other tokens are merged; else 1.

    Raises:
        RunFolderError: If the folder has no tested run, or the test data has changed.
    """
    task, devices, _ = retest(path, data_dir, merge_tokens)
    recorded = _recorded(RunFolder(path))
    metrics = task.results["test"].metrics
    different = [name for name, value in metrics.items() if recorded.get(name) != value]
    _print(metrics, recorded, devices)
    print(f"loss: {task_loss(task)}")
    if merge_tokens is not None:
        print(f"merge_tokens: {merge_tokens}")
        return 0
    print(
        "all metrics equal metrics.json" if not different else f"different: {', '.join(different)}"
    )
    return 1 if different else 0


def _recorded(folder: RunFolder) -> dict[str, Any]:
    """Return the recorded test metrics, or raise `RunFolderError`."""
    recorded: dict[str, Any] | None = folder.read_json("metrics.json").get("test")
    if recorded is None:
        tested = (folder.path / "metrics.json").exists()
        why = (
            "it ran with test=false; run it again with test=true"
            if tested
            else "it has no metrics.json; run it to its end first"
        )
        msg = f"{folder.path} has no test metrics: {why}"
        raise RunFolderError(msg)
    return recorded


def retest(
    path: Path, data_dir: str | None = None, merge_tokens: MergedTokens | None = None
) -> Tested:
    """Test a run's best checkpoint on its test data.

    Args:
        path: The run folder.
        data_dir: The folder of the datasets, or the run's dataset itself where that was renamed;
            None for the one in config.yaml.
        merge_tokens: See `evaluate`.

    Raises:
        RunFolderError: If the folder has no tested run, or the test data has changed.
    """
    folder = RunFolder(path)
    _check_run(folder)
    _recorded(folder)
    cfg, checkpoint = open_checkpoint(folder, merge_tokens)
    if data_dir is not None:
        _set_data_folder(cfg, Path(data_dir))
    place = Path(cfg.data.get("data_dir", ""), cfg.data.get("folder", ""))
    try:
        datamodule = data_from_checkpoint(cfg, checkpoint, folder.best_checkpoint)
    except DataError as error:
        if place.exists():
            raise
        msg = f"{place}: the folder of the run's data is gone; pass its new place with --data-dir"
        raise DataError(msg) from error
    _check_data(folder, datamodule.describe()["test"])
    return test_checkpoint(cfg, folder, checkpoint, datamodule)


def _set_data_folder(cfg: DictConfig, data_dir: Path) -> None:
    if not data_dir.is_dir():
        msg = f"--data-dir {data_dir}: no such folder; pass the folder of the run's data"
        raise DataError(msg)
    cfg.data.data_dir = str(data_dir.resolve())
    folder = cfg.data.get("folder")
    if folder is not None and (Path(folder).is_absolute() or not (data_dir / folder).exists()):
        cfg.data.folder = str(data_dir.resolve())


def evaluate_on(
    path: Path,
    data: Path,
    on_bad_rows: Literal["error", "skip"] = "error",
    merge_tokens: MergedTokens | None = None,
) -> Path:
    """Test a run's best checkpoint on other labelled data, and print the metrics.

    The result is written to the folder `evaluations` in the run folder. NAME is the name of the
    data and the first digits of its fingerprint. `NAME.json` has the metrics, the number of samples
    and the fingerprint, `NAME.parquet` the predictions, `NAME.skipped_rows.csv` bad rows.

    Args:
        path: The run folder.
        data: A table or folder in the format of the run's test data, with the same columns.
        on_bad_rows: Raise an error, or leave bad rows out and list them.
        merge_tokens: See `evaluate`. The names of the files then end with `-merge_<value>`, and the
            record has the value.

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
    cfg, checkpoint = open_checkpoint(folder, merge_tokens)
    cfg.data.on_bad_rows = on_bad_rows
    datamodule = data_from_checkpoint(cfg, checkpoint, folder.best_checkpoint, data.resolve())
    task = test_checkpoint(cfg, folder, checkpoint, datamodule).task
    target = _write(folder, task, datamodule, data.resolve(), merge_tokens)
    result = task.results["test"]
    shown = Table("metric", "value", title=f"{one_line(data.name)}, n = {result.count}")
    for metric in kind_named(task.kind).metrics:
        if metric.name in result.metrics:
            shown.add_row(metric.title, metric.text(result.metrics[metric.name]))
    console().print(shown)
    own = restored_data(cfg, data_state(cfg, checkpoint, folder.best_checkpoint))
    _warn_of_trained_data(folder, own, datamodule, data.resolve())
    print(one_line(target))
    return target


def _warn_of_trained_data(
    folder: RunFolder,
    own: TransferDataModule[Any],
    evaluated: TransferDataModule[Any],
    data: Path,
) -> None:
    """Warn if samples are in the train or val split of the run.

    The run's data is read again if it is texts, or if `data` is its train or val split, a part of
    it, or a folder with it. Other data would take long to read.

    Args:
        folder: The run folder.
        own: The run's datamodule, not set up.
        evaluated: The datamodule with the samples.
        data: File or folder of the samples.
    """
    places = [place for place in map(own.path_of, ("train", "val")) if place is not None]
    related = any(data.is_relative_to(each) or each.is_relative_to(data) for each in places)
    if not related and not (places and own.inputs == "texts"):
        return
    recorded = folder.read_json("provenance.json").get("data", {}).get("train", {})
    try:
        splits = own.training_splits()
    except DataError:
        splits = {}
    if not splits or fingerprint(splits["train"].rows()) != recorded.get("sha256"):
        if related:  # the data has changed since
            log.warning("%s is of the data of this run: its metrics may be too good", data)
        return
    known = {name: set(split.sample_keys()) for name, split in splits.items()}
    keys = list(evaluated.splits["test"].sample_keys())
    shared = {name: sum(key in known[name] for key in keys) for name in known}
    found = [(name, count) for name, count in shared.items() if count]
    if found:
        (name, count), *more = found
        log.warning(
            "%d of %d %s are in the %s split of this run%s, so these metrics are too good",
            count, len(keys), evaluated.sample_noun, name,
            "".join(f" (and {other} in {split})" for split, other in more),
        )  # fmt: skip


def _write(
    folder: RunFolder,
    task: Task,
    datamodule: TransferDataModule[Any],
    data: Path,
    merge_tokens: MergedTokens | None,
) -> Path:
    """Write the files of an evaluation, and return the path of the metrics."""
    results, result = results_of(task.kind), task.results["test"]
    facts = datamodule.describe()["test"]
    name = f"{data.stem}-{facts['sha256'][:8]}"
    record = {"kind": task.kind, "data": str(data), **facts, **results.record(result, datamodule)}
    if merge_tokens is not None:
        name += "-merge_" + re.sub(r"[^\w.-]+", "_", str(merge_tokens)).strip("_")
        record["merge_tokens"] = merge_tokens
    place = folder.path / "evaluations" / name
    folder.write_json(f"evaluations/{place.name}.json", record)
    table = results.predictions(result, datamodule, "test")
    write_parquet(table, place.with_name(f"{place.name}.parquet"))
    if datamodule.bad_rows:
        skipped = place.with_name(f"{place.name}.skipped_rows.csv")
        folder.write_table(skipped, [row.as_text() for row in datamodule.bad_rows])
        log.info("%s lists the rows that were left out", skipped)
    return place.with_name(f"{place.name}.json")


def _check_run(folder: RunFolder) -> None:
    if not os.path.lexists(folder.config):
        raise folder.no_run(folder.config.name)


def open_checkpoint(
    folder: RunFolder, merge_tokens: MergedTokens | None
) -> tuple[DictConfig, dict[str, Any]]:
    """Return a run's config, with other merged tokens if asked for, and its best checkpoint."""
    filter_known()
    _check_run(folder)
    cfg = read_trained_config(folder.config)
    set_merged_tokens(cfg, merge_tokens)
    return cfg, load_checkpoint(folder.best_checkpoint)


def test_checkpoint(
    cfg: DictConfig,
    folder: RunFolder,
    checkpoint: dict[str, Any],
    datamodule: TransferDataModule[Any],
) -> Tested:
    """Test a checkpoint."""
    task = model_from_checkpoint(cfg, checkpoint, folder.best_checkpoint)
    check_input_limits(datamodule, task)
    task.logs_metrics = False
    for key in PLACES["trainer"].refused:  # version 0.1 recorded some of them and dropped them
        cfg.trainer.pop(key, None)
    # The metrics do not depend on the number of devices. A profiler would write files.
    cfg.trainer.update({"devices": 1, "num_nodes": 1, "strategy": "auto", "profiler": None})
    with keeping_determinism():
        trainer = build_trainer(cfg, folder, progress_bar(), [])
        start = time.perf_counter()
        with naming_refusals():
            trainer.test(task, datamodule=datamodule, verbose=False)
    return Tested(task, trainer.num_devices, time.perf_counter() - start)


def _check_data(folder: RunFolder, facts: dict[str, Any]) -> None:
    before = folder.read_json("provenance.json").get("data", {}).get("test")
    if before is None:
        msg = f"{folder.path / 'provenance.json'} is missing, or has no test data; restore it"
        raise RunFolderError(msg)
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
        shown = (
            metric_text(None, name) if each is None else repr(each)
            for each in (value, recorded.get(name))
        )
        table.add_row(name, *shown)
    console().print(table)
