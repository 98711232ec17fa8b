"""The page that compares runs, one self-contained HTML file."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from reports import plots
from reports.groups import Group, grouped
from reports.page import environment, line
from reports.record import RunRecord, read_run
from reports.statistics import mcnemar_exact
from run_folders.metrics import METRICS, shown_in
from run_folders.run_folder import write_text

_STAGES = {"val": "validation", "train": "training"}
_MAX_LINES = 12
_MAX_TESTED = 6  # runs whose pairs are tested: of many comparisons some come out by chance


def write_comparison(paths: list[Path], target: Path) -> Path:
    """Draw one page that compares runs; the first is what the others are held against. Seeds of one run are one row.

    Args:
        paths: Run folders.
        target: The page.

    Returns:
        The page.
    """
    runs = [read_run(path) for path in paths]
    names = distinct_names(runs)
    template = environment().get_template("compare.html.j2")
    page = template.render(title=f"Comparison of {', '.join(names)}", **compared(runs, names))
    write_text(target, page)
    return target


def distinct_names(runs: Sequence[RunRecord]) -> list[str]:
    """What each run is called: its experiment and time, or its path where that is not enough."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else str(run.folder)
        for name, run in zip(names, runs, strict=True)
    ]


def compared(runs: Sequence[RunRecord], names: Sequence[str]) -> dict[str, Any]:
    """What the template of a comparison shows.

    Args:
        runs: At least one.
        names: Of the runs.
    """
    groups = grouped(runs, names)
    tested = any(run.test for run in runs)
    stage = "test" if tested else "val"
    columns = [
        (name, metric.title)
        for name, metric in METRICS.items()
        if any(_has(run, stage, name) for run in runs)
    ]
    return {
        "stage": stage,
        "columns": columns,
        "groups": [_row(group, groups[0], stage) for group in groups],
        "runs": [
            {"name": n, "run": r, "metrics": r.metrics.get(stage, {})}
            for n, r in zip(names, runs, strict=True)
        ],
        "curves": _curves(runs, names),
        "drawn": _MAX_LINES,
        "pairs": _pairs(runs, names) if len(runs) <= _MAX_TESTED else [],
    }


def _has(run: RunRecord, stage: str, key: str) -> bool:
    return run.metrics.get(stage, {}).get(key) is not None


def _row(group: Group, first: Group, stage: str) -> dict[str, Any]:
    cells = {}
    for key in METRICS:
        summary, base = group.summary(stage, key), first.summary(stage, key)
        if summary is not None:
            difference = (
                summary.mean - base.mean if base is not None and group is not first else None
            )
            cells[key] = {"summary": summary, "difference": difference}
    return {
        "group": group,
        "cells": cells,
        "run": group.first,
        "metrics": group.first.metrics.get(stage, {}),
    }


def _curves(runs: Sequence[RunRecord], names: Sequence[str]) -> dict[str, str]:
    drawn = {}
    curves = [("val", metric) for metric in shown_in("comparison")] + [("train", METRICS["loss"])]
    for stage, metric in curves:
        column, title = f"{stage}/{metric.name}", f"{_STAGES[stage]} {metric.title}"
        lines = {
            n: line(r.history, column)
            for n, r in zip(names, runs, strict=True)
            if column in r.history
        }
        if lines:
            shown = dict(list(lines.items())[:_MAX_LINES])
            drawn[title] = plots.curves(shown, title, f"{title} by epoch")
    return drawn


def _pairs(runs: Sequence[RunRecord], names: Sequence[str]) -> list[dict[str, Any]]:
    """For each pair of runs with the same test set, which has the better of how many samples, and how likely that is by chance.

    Of classifiers the samples that only one has right (McNemar's test); of segmenters the images
    with the higher IoU (the sign test). Both ask whether a fair coin falls so unevenly.
    """
    rows = []
    for (a, first), (b, second) in combinations(zip(names, runs, strict=True), 2):
        row: dict[str, Any] = {"first": a, "second": b, "p": None}
        ours, theirs = first.predictions, second.predictions
        if ours is not None and theirs is not None:
            measure = "iou" if "iou" in ours else "label"
            keys = ["index", ours.columns[-1], *(["label"] if measure == "label" else [])]
            if {*keys, measure} <= set(theirs) and ours[keys].equals(theirs[keys]):
                scores = [
                    t["iou"] if measure == "iou" else (t["label"] == t["prediction"]).astype(int)
                    for t in (ours, theirs)
                ]
                row["only_first"], row["only_second"] = (
                    int((scores[0] > scores[1]).sum()),
                    int((scores[1] > scores[0]).sum()),
                )
                row["p"], row["n"] = mcnemar_exact(row["only_first"], row["only_second"]), len(ours)
        rows.append(row)
    return rows
