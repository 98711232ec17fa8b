"""Publish a run to the dashboards, using only the content of its folder."""

import importlib.util
import io
import logging
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning
import numpy as np
from filelock import FileLock
from hydra.errors import InstantiationException
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from engine.config.redaction import hide, secret_values
from engine.processes.outcome import is_user_error
from lightning_modules.callbacks.folder_checkpoint import FolderCheckpoint
from lightning_modules.loggers.base import (
    Confusion,
    Content,
    Dashboard,
    FinalMetrics,
    LoggerError,
    Overlay,
    Picture,
    Table,
)
from reports.mistakes import MAX_MISTAKES, misclassified_samples
from reports.record import RunRecord, read_run
from reports.segmentation import is_segmentation
from run_folders.errors import brief
from run_folders.nested import leaves
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)

RUNS = "loggers.json"  # name of a logger in the config -> run_id of its run
# Logger, which is also the name of an extra -> the packages that it needs.
_REQUIRED_PACKAGES = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}
_SQLITE = "sqlite:///"
_MOST_PICTURES = 60


@contextmanager
def starting_logger(cfg: DictConfig, name: str) -> Iterator[None]:
    """Prepare for a dashboard that is started inside; turn any error there into one line.

    Args:
        cfg: The config.
        name: The name of a logger in the config.

    Raises:
        LoggerError: If a package is missing, or the dashboard cannot be reached.
    """
    for package in _REQUIRED_PACKAGES.get(name, ()):
        if importlib.util.find_spec(package) is None:
            msg = (
                f"logger={name} needs the package {package}, which is not installed: "
                f"pip install -e '.[{name}]'"
            )
            raise LoggerError(msg)
    # MLflow reads these variables when it is imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # If this module exists, TensorBoard uses its own stub of TensorFlow. Otherwise it imports an
    # installed TensorFlow completely to open a file.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    try:
        with _database_lock(str(cfg.logger[name].get("tracking_uri"))):
            yield
    except InstantiationException as error:
        raise _cannot_start(cfg, name, error.__cause__ or error) from error
    except Exception as error:
        if is_user_error(error):
            raise
        raise _cannot_start(cfg, name, error) from error


def _database_lock(address: str) -> AbstractContextManager[Any]:
    """Return a lock: only one job of a sweep at a time may create the tables of a database."""
    if not address.startswith(_SQLITE):
        return nullcontext()
    return FileLock(f"{address.removeprefix(_SQLITE)}.lock")


def _cannot_start(cfg: DictConfig, name: str, error: BaseException) -> LoggerError:
    reason = hide(brief(error, most=None), secret_values(cfg))
    return LoggerError(
        f"logger={name} cannot be started: {reason}; "
        f"correct logger.{name} in the config, or leave it out"
    )


def start_loggers(cfg: DictConfig, folder: RunFolder, trainer: lightning.Trainer) -> None:
    """Start the run on every dashboard, or resume the run that the folder has recorded.

    Only the first of several processes acts.

    Args:
        cfg: The config, for the names of the loggers.
        folder: The run folder, with config and provenance.
        trainer: The run's trainer; its loggers are in the order of the config.

    Raises:
        LoggerError: If a dashboard cannot be reached.
    """
    if not trainer.loggers or not trainer.is_global_zero:
        return
    config: Any = OmegaConf.to_container(OmegaConf.load(folder.config), resolve=False)
    runs = folder.read_json(RUNS)
    for name, logger in zip(cfg.logger, trainer.loggers, strict=True):
        with starting_logger(cfg, str(name)):
            if isinstance(logger, Dashboard):
                logger.begin({**config, "provenance": folder.read_json("provenance.json")})
            else:
                resumes = name in runs or cfg.logger[name].get("run_id") is not None
                _begin_plain(logger, folder, config, resumes=resumes)
            if "run_id" in cfg.logger[name]:  # written at once, because the next logger may fail
                runs[str(name)] = logger.version
                folder.write_json(RUNS, runs)


def _begin_plain(
    logger: Logger, folder: RunFolder, config: dict[str, Any], *, resumes: bool
) -> None:
    """Log the config to one of Lightning's own loggers."""
    if not resumes:  # MLflow does not allow changes of a parameter
        logger.log_hyperparams(config)
    if isinstance(logger, TensorBoardLogger):  # it shows hyperparameters beside metrics only
        logger.experiment.add_text(
            "config", textwrap.indent(folder.config.read_text(encoding="utf-8"), "    ")
        )
    if isinstance(logger, MLFlowLogger):
        logger.experiment.update_run(logger.run_id, status="RUNNING")
        for name in (folder.config.name, "provenance.json"):
            logger.experiment.log_artifact(logger.run_id, str(folder.path / name))


def publish(cfg: DictConfig, folder: RunFolder, trainer: lightning.Trainer) -> None:
    """Publish a finished run to every dashboard.

    A failed upload is logged as a warning, and does not change the outcome of the run.
    """
    if not trainer.loggers or not trainer.is_global_zero:
        return
    contents = list(_contents(folder, read_run(folder.path)))
    for logger in trainer.loggers:
        upload = (
            logger.publish
            if isinstance(logger, Dashboard)
            else partial(_publish_plain, logger, trainer)
        )
        for description, name, content in contents:
            try:
                upload(name, content)
            except Exception as error:
                reason = hide(brief(error), secret_values(cfg))
                log.warning(
                    "%s did not take %s (%s); the run folder has it",
                    type(logger).__name__,
                    description,
                    reason,
                )


def _publish_plain(logger: Logger, trainer: lightning.Trainer, name: str, content: Content) -> None:
    """Publish content to one of Lightning's own loggers, if the logger supports it."""
    if isinstance(content, FinalMetrics):
        logger.log_metrics(content.values)
    elif name == "checkpoint":
        best = next(
            callback
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, FolderCheckpoint)
        )
        # The path is empty if nothing was trained.
        best.best_model_path = best.best_model_path or str(content)
        type(logger).after_save_checkpoint(logger, best)
    elif isinstance(content, Path) and isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(content))


def _contents(folder: RunFolder, run: RunRecord) -> Iterator[tuple[str, str, Content]]:
    """Yield what is published: its description, its name and the content."""
    yield "the metrics", "metrics", _summary(run.metrics)
    tables = {"plan": _of_dicts(run.plan["rows"])}
    if run.test:
        tables["test/classes"] = _classes(run)
        tables["test/images" if is_segmentation(run) else "test/mistakes"] = _samples(run)
    for name, table in tables.items():
        yield f"the table {name}", name, table
    pictures = _pictures(run)
    if pictures:
        yield "the pictures", "test/pictures", pictures
    if run.test:
        yield (
            "the confusion matrix",
            "test/confusion",
            Confusion(run.test["classes"], run.test["confusion_matrix"]),
        )
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


def _of_dicts(rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return Table(columns, [[row.get(column) for column in columns] for row in rows])


def _classes(run: RunRecord) -> Table:
    return _of_dicts(
        [{"class": name, **leaves(metrics)} for name, metrics in run.test["per_class"].items()]
    )


def _samples(run: RunRecord) -> Table:
    """Return the misclassified samples, the most confident first.

    For segmentation, return all images, the worst first. Both are cut to `MAX_MISTAKES` rows.
    """
    if run.predictions is None:
        return Table(["index"], [])
    if is_segmentation(run):
        table = run.predictions.sort_values(["iou", "index"]).head(MAX_MISTAKES)
        known = table.astype(object).where(table.notna(), None)
        return Table([str(column) for column in table], known.to_numpy().tolist())
    wrong = misclassified_samples(run).head(MAX_MISTAKES)
    reference = str(run.predictions.columns[-1])
    columns = ["index", "label", "prediction", "confidence", "reference"]
    rows = wrong[columns].astype(object).to_numpy().tolist()
    return Table(
        [*columns[:-1], reference],
        [[int(row[0]), *row[1:3], float(row[3]), str(row[4])] for row in rows],
    )


def _pictures(run: RunRecord) -> list[Picture]:
    """Return misclassified images with captions; for segmentation chosen images with overlays."""
    if run.predictions is None or not run.pictures:
        return []
    if is_segmentation(run):
        return _segmentation_pictures(run)
    wrong = misclassified_samples(run).to_dict("records")
    rows = [row for row in wrong if row["index"] in run.pictures][:_MOST_PICTURES]
    return [
        Picture(
            run.pictures[r["index"]],
            f"{r['label']} taken for {r['prediction']} ({r['confidence']:.2f}), index {r['index']}",
        )
        for r in rows
    ]


def _segmentation_pictures(run: RunRecord) -> list[Picture]:
    assert run.predictions is not None  # noqa: S101 - tells the type checker
    rows = {int(row["index"]): row for row in run.predictions.to_dict("records")}
    pictures = []
    for index, content in run.pictures.items():
        caption = f"{run.picture_groups[index]}: index {index}, IoU {rows[index]['iou']:.4f}"
        pictures.append(Picture(content, caption, _overlay(run, index)))
    return pictures


def _overlay(run: RunRecord, index: int) -> Overlay | None:
    layers = run.picture_layers.get(index)
    if layers is None:
        return None
    image, prediction, annotation = (
        np.asarray(Image.open(io.BytesIO(content))) for content in layers
    )
    return Overlay(
        image, {"prediction": prediction, "annotation": annotation}, list(run.test["classes"])
    )
