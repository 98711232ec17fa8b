"""The content that a run publishes to the dashboards, read from its folder."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from lightning_modules.loggers.base import (
    Confusion,
    Content,
    FinalMetrics,
    Overlay,
    Picture,
    Table,
)
from reports.mistakes import MAX_MISTAKES, misclassified_samples
from reports.record import RunRecord, read_run
from reports.segmentation import is_segmentation
from run_folders.metrics import METRICS
from run_folders.nested import leaves
from run_folders.run_folder import RunFolder

_MOST_PICTURES = 60


def run_contents(folder: RunFolder) -> Iterator[tuple[str, str, Content]]:
    """Yield each content of a finished run with its description and its name."""
    run = read_run(folder.path)
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
        iou = METRICS["miou"].text(rows[index]["iou"])
        caption = f"{run.picture_groups[index]}: index {index}, IoU {iou}"
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
