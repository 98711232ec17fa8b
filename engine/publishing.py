"""What the dashboards get of a run, drawn from its folder: what is not in it is not published."""

import io
import logging
from collections.abc import Callable, Iterator
from operator import methodcaller
from typing import Any

import lightning
import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from engine.build import read_config
from engine.run_folder import RunFolder
from lightning_modules.loggers.base import Dashboard, Origin, Overlay, Picture, Table, flattened
from reports.mistakes import MAX_MISTAKES, wrong_samples
from reports.record import RunRecord, read_run
from reports.scenes import is_segmentation
from run_folders.errors import brief

log = logging.getLogger(__name__)

_RUNS = "loggers.json"  # the config's name of a logger -> what finds its run again
_MOST_PICTURES = 60

Step = tuple[str, Callable[[Dashboard], None]]


def begin(cfg: DictConfig, folder: RunFolder, trainer: lightning.Trainer) -> None:
    """Begin the run on every dashboard, or go on with the one that the folder remembers.

    Args:
        cfg: The config, for the names of the loggers.
        folder: The run folder, config and provenance written.
        trainer: The run's; its loggers are in the order of the config. Of several processes only the first acts.

    Raises:
        LoggerError: If a dashboard cannot be reached.
    """
    if not trainer.loggers or not trainer.is_global_zero:
        return
    config: Any = OmegaConf.to_container(read_config(folder.config), resolve=False)
    origin = Origin(config, folder.read_json("provenance.json"), cfg.monitor)
    runs = folder.read_json(_RUNS)
    for name, logger in zip(cfg.logger, trainer.loggers, strict=True):
        if isinstance(logger, Dashboard):
            found = logger.begin(origin, runs.get(name))
            if found is not None:  # written at once: the next one may fail
                runs[str(name)] = found
                folder.write_json(_RUNS, runs)


def publish(folder: RunFolder, trainer: lightning.Trainer) -> None:
    """Show a finished run on every dashboard. What fails is told in a line, and the run stays what it is."""
    dashboards = [logger for logger in trainer.loggers if isinstance(logger, Dashboard)]
    if not dashboards or not trainer.is_global_zero:
        return
    steps = list(_steps(folder, read_run(folder.path)))
    for dashboard in dashboards:
        for what, step in steps:
            try:
                step(dashboard)
            except Exception as error:
                reason = brief(error)
                log.warning("%s did not take %s (%s); the run folder has it", type(dashboard).__name__, what, reason)


def _steps(folder: RunFolder, run: RunRecord) -> Iterator[Step]:
    """What is published, and how."""
    figures, chosen = _figures(run.metrics)
    yield "the figures", methodcaller("publish_figures", figures, chosen)
    tables = {"plan": _of_dicts(run.plan["rows"])}
    if run.test:
        tables["test/classes"] = _classes(run)
        tables["test/images" if is_segmentation(run) else "test/mistakes"] = _samples(run)
    for name, table in tables.items():
        yield f"the table {name}", methodcaller("publish_table", name, table)
    pictures = _pictures(run)
    if pictures:
        yield "the pictures", methodcaller("publish_pictures", "test/pictures", pictures)
    if run.test:
        classes, counts = run.test["classes"], run.test["confusion_matrix"]
        yield "the confusion matrix", methodcaller("publish_confusion", "test/confusion", classes, counts)
    files = {"plan": folder.path / "plan.json", "report": folder.report, "checkpoint": folder.best_checkpoint}
    kinds = {"plan": "record", "report": "report", "checkpoint": "model"}
    for name, path in files.items():
        if path.is_file():
            yield path.name, methodcaller("publish_file", name, path, kinds[name])


def _figures(metrics: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """All figures, and those of validation under their curves' names."""
    stages = {stage: _numbers(metrics.get(stage) or {}) for stage in ("test", "val", "seconds", "parameters")}
    figures = {f"{stage}/{key}": value for stage, found in stages.items() for key, value in found.items() if stage != "val"}
    figures |= {f"best/val/{key}": value for key, value in stages["val"].items()}
    best = metrics.get("best") or {}
    if best:
        figures |= {"best/epoch": best["epoch"], "best/score": best["score"]}
    return figures, {f"val/{key}": value for key, value in stages["val"].items()}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {key: v for key, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _of_dicts(rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return Table(columns, [[row.get(column) for column in columns] for row in rows])


def _classes(run: RunRecord) -> Table:
    return _of_dicts([{"class": name, **flattened(figures)} for name, figures in run.test["per_class"].items()])


def _samples(run: RunRecord) -> Table:
    """The misclassified samples, the most confident first; of label maps all images, the worst first."""
    if run.predictions is None:
        return Table(["index"], [])
    if is_segmentation(run):
        table = run.predictions.sort_values(["iou", "index"]).head(MAX_MISTAKES)
        known = table.astype(object).where(table.notna(), None)
        return Table([str(column) for column in table], known.to_numpy().tolist())
    wrong = wrong_samples(run).head(MAX_MISTAKES)
    reference = str(run.predictions.columns[-1])
    columns = ["index", "label", "prediction", "confidence", "reference"]
    rows = wrong[columns].astype(object).to_numpy().tolist()
    return Table([*columns[:-1], reference], [[int(row[0]), *row[1:3], float(row[3]), str(row[4])] for row in rows])


def _pictures(run: RunRecord) -> list[Picture]:
    """Misclassified images with what they were taken for; of label maps the chosen images with their overlays."""
    if run.predictions is None or not run.pictures:
        return []
    if is_segmentation(run):
        return _scenes(run)
    rows = [row for row in wrong_samples(run).to_dict("records") if row["index"] in run.pictures][:_MOST_PICTURES]
    return [
        Picture(
            run.pictures[r["index"]], f"{r['label']} taken for {r['prediction']} ({r['confidence']:.2f}), index {r['index']}"
        )
        for r in rows
    ]


def _scenes(run: RunRecord) -> list[Picture]:
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
    image, prediction, annotation = (np.asarray(Image.open(io.BytesIO(content))) for content in layers)
    return Overlay(image, {"prediction": prediction, "annotation": annotation}, list(run.test["classes"]))
