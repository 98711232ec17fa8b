"""Write the report page of a run, one self-contained HTML file."""

import math
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from reports import plots
from reports.mistakes import MAX_MISTAKES, misclassified_pictures, misclassified_samples, mistakes
from reports.pictures import class_pictures
from reports.record import RunRecord, read_run
from reports.segmentation import (
    class_rows,
    confusion_pairs,
    is_segmentation,
    segmentation_headline,
    segmentation_pictures,
)
from reports.statistics import Interval, macro_f1_interval, roc_auc_interval, wilson_interval
from run_folders.files import write_text
from run_folders.metrics import METRICS, metric_text, shown_in
from run_folders.run_folder import RunFolder

_MAX_RATES = 6
_MAX_DRAWN_CLASSES = 40


def environment() -> jinja2.Environment:
    """Return the Jinja environment that renders the templates."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["metric"] = metric_text
    environment.filters["share"] = lambda value: f"{value:.1%}"
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["thousands"] = lambda value: f"{value:,}"
    return environment


def write_report(path: Path) -> Path:
    """Write the page of a run from its folder.

    Args:
        path: The run folder.

    Returns:
        The path of the page: report.html in the folder.
    """
    run = read_run(path)
    target = RunFolder(path).report
    page = (
        environment()
        .get_template("run.html.j2")
        .render(
            title=run.name,
            run=run,
            main="miou" if "miou" in run.metrics.get("val", run.test) else "acc",
            metrics=METRICS,
            curves=_curves(run),
            plots=_run_plots(run),
            **(_segmentation_parts(run) if is_segmentation(run) else _classification_parts(run)),
            warnings=_warnings(run),
            epochs=run.history.to_dict("records"),
        )
    )
    write_text(target, page)
    return target


def _classification_parts(run: RunRecord) -> dict[str, Any]:
    return {
        "sample_noun": "samples",
        "headline": _headline(run),
        "averages": _averages(run.test),
        "kinds": mistakes(run),
        "class_pictures": class_pictures(run),
        "misclassified_pictures": misclassified_pictures(run),
        "wrong_count": len(misclassified_samples(run)),
        "max_mistakes": MAX_MISTAKES,
    }


def _segmentation_parts(run: RunRecord) -> dict[str, Any]:
    segmentation = {
        "classes": class_rows(run),
        "pairs": confusion_pairs(run),
        "pictures": segmentation_pictures(run),
    }
    headline = segmentation_headline(run) if run.test["pixels"] else []
    return {"sample_noun": "images", "headline": headline, "segmentation": segmentation}


def _headline(run: RunRecord) -> list[dict[str, Any]]:
    test = run.test
    if not test.get("n"):
        return []
    hits = sum(row[k] for k, row in enumerate(test["confusion_matrix"]))
    intervals = {
        "acc": wilson_interval(hits, test["n"]),
        "f1_macro": macro_f1_interval(test["confusion_matrix"]),
    }
    cards = [_card(name, test, interval) for name, interval in intervals.items()]
    if test.get("roc_auc") is not None and run.predictions is not None:
        positive = test["classes"][1]
        interval = roc_auc_interval(
            run.predictions[f"probability_{positive}"].tolist(),
            (run.predictions["label"] == positive).tolist(),
        )
        cards.append(
            {
                "title": f"{METRICS['roc_auc'].title} of {positive}",
                "value": test["roc_auc"],
                "interval": interval,
            }
        )
    return [*cards, _card("ece", test, None)]


def _card(name: str, test: dict[str, Any], interval: Interval | None) -> dict[str, Any]:
    return {"title": METRICS[name].title, "value": test[name], "interval": interval}


def _curves(run: RunRecord) -> dict[str, str]:
    """Return plots over the epochs, title -> SVG."""
    history, drawn = run.history, {}
    for metric in shown_in("curves"):
        columns = {stage: f"{stage}/{metric.name}" for stage in ("train", "val")}
        lines = {
            stage: line(history, column) for stage, column in columns.items() if column in history
        }
        if lines:
            drawn[metric.title] = plots.curves(lines, metric.title, f"{metric.title} by epoch")
    names = [
        str(column)
        for column in history
        if str(column).startswith("lr/") and "no_decay" not in str(column)
    ]
    names = [name for name in names if history[name].notna().any()]
    # Layer-wise decay has one parameter group per layer: draw a regular subset of them.
    names = names[:: max(1, math.ceil(len(names) / _MAX_RATES))]
    rates = {name.removeprefix("lr/"): line(history, name) for name in names}
    if rates:
        drawn["learning rate"] = plots.curves(
            rates, "learning rate", "learning rate at the end of each epoch"
        )
    return drawn


def _run_plots(run: RunRecord) -> dict[str, str]:
    drawn = {}
    if "train/seconds" in run.history:
        seconds = line(run.history, "train/seconds")
        drawn["seconds"] = plots.curves({"train": seconds}, "seconds", "training seconds by epoch")
    if run.test.get("n") and len(run.test["classes"]) <= _MAX_DRAWN_CLASSES:
        drawn["confusion"] = plots.confusion_matrix(
            run.test["confusion_matrix"], run.test["classes"]
        )
    if run.test.get("calibration"):
        drawn["reliability"] = plots.reliability(run.test["calibration"])
    return drawn


def line(history: pd.DataFrame, column: str) -> tuple[list[float], list[float]]:
    """Return the epochs and the values of a column of the history."""
    return history["epoch"].tolist(), history[column].tolist()


def _averages(test: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of averages below the per-class table.

    Each sample has one label, so micro precision, recall and F1 all equal the accuracy.
    """
    if not test.get("n"):
        return []
    rows = [{"name": "micro average", **dict.fromkeys(("precision", "recall", "f1"), test["acc"])}]
    rows += [
        {
            "name": f"{kind} average",
            **{name: test[f"{name}_{kind}"] for name in ("precision", "recall", "f1")},
        }
        for kind in ("macro", "weighted")
    ]
    return rows


def _warnings(run: RunRecord) -> list[str]:
    lines = []
    if run.state != "finished" and run.status.get("error"):
        ended = "failed" if run.state == "failed" else f"was {run.state}"
        lines.append(f"The run {ended} during {run.status['stage']}: {run.status['error']}")
    data = run.provenance.get("data", {})
    for split in ("train", "val", "test"):
        skipped = data.get(split, {}).get("skipped_rows", 0)
        if skipped:
            lines.append(
                f"{skipped} bad rows of {split} were left out; skipped_rows.csv lists them."
            )
    for overlap in data.get("overlaps", []):
        first, second = overlap["splits"]
        count, what = overlap["count"], overlap["what"]
        shared = f"1 {what.removesuffix('s')} occurs" if count == 1 else f"{count} {what} occur"
        lines.append(
            f"{shared} in {first} and in {second}, for example: {overlap['examples'][0][:120]}"
        )
    return lines
