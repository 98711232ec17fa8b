"""The page that compares runs: one self-contained HTML file."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from reports import plots
from reports.differences import differing_settings, have_same_loss, short_labels
from reports.groups import Group, group_by_seed
from reports.kinds.base import page_of_run
from reports.page import environment, line
from reports.record import RunRecord, read_run
from reports.statistics import mcnemar_exact
from run_folders.files import write_text
from run_folders.kinds import metrics_by_name
from run_folders.metrics import LOSS

_STAGES = {"val": "validation", "train": "training"}
_MAX_LINES = 12
_MAX_TESTED = 6  # With more runs there are so many pairs that some would differ by chance alone.


def write_comparison(paths: list[Path], target: Path) -> Path:
    """Write one page that compares runs.

    All differences are relative to the first run. Runs that differ only by seed share a row.

    Args:
        paths: Run folders.
        target: The HTML file to write.

    Returns:
        The path of the page.
    """
    runs = [read_run(path) for path in paths]
    differing = differing_settings(runs)
    folders = distinct_names(runs)
    names = short_labels(differing) or folders
    template = environment().get_template("compare.html.j2")
    page = template.render(
        title=f"Comparison of {', '.join(names)}",
        differing=differing,
        folders=folders,
        **comparison_context(runs, names),
    )
    write_text(target, page)
    return target


def distinct_names(runs: Sequence[RunRecord]) -> list[str]:
    """Return a display name for each run.

    The name is experiment and time, or the path of the run folder if several runs share those.
    """
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else str(run.folder)
        for name, run in zip(names, runs, strict=True)
    ]


def comparison_context(runs: Sequence[RunRecord], names: Sequence[str]) -> dict[str, Any]:
    """Return the template variables of a comparison.

    Args:
        runs: At least one run.
        names: A display name for each run.
    """
    groups = group_by_seed(runs, names)
    tested = any(run.test for run in runs)
    stage = "test" if tested else "val"
    columns = [
        (name, metric.title)
        for name, metric in metrics_by_name(run.kind for run in runs).items()
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
        "different_losses": not have_same_loss(runs),
        "drawn": _MAX_LINES,
        "comparisons": list(dict.fromkeys(page_of_run(run).comparison for run in runs)),
        "pairs": _pairs(runs, names) if len(runs) <= _MAX_TESTED else [],
    }


def _has(run: RunRecord, stage: str, key: str) -> bool:
    return key in run.metrics.get(stage, {})  # None if it is not defined


def _row(group: Group, first: Group, stage: str) -> dict[str, Any]:
    cells = {}
    for key, metric in metrics_by_name().items():
        summary, base = group.summary(stage, key), first.summary(stage, key)
        if summary is not None:
            difference = None
            comparable = key != LOSS.name or have_same_loss([group.first, first.first])
            if base is not None and group is not first and comparable:
                difference = metric.difference(summary.mean - base.mean)
            cells[key] = {"summary": summary, "difference": difference}
    return {
        "group": group,
        "cells": cells,
        "run": group.first,
        "metrics": group.first.metrics.get(stage, {}),
    }


def _curves(runs: Sequence[RunRecord], names: Sequence[str]) -> dict[str, str]:
    drawn = {}
    metrics = metrics_by_name(run.kind for run in runs).values()
    curves = [("val", metric) for metric in metrics if "comparison" in metric.shown]
    curves.append(("train", LOSS))
    if not have_same_loss(runs):
        curves = [(stage, metric) for stage, metric in curves if metric.name != LOSS.name]
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
    """Return a row for each pair of runs: on how many samples each is better, and the p-value.

    The p-value is None unless both runs were tested on the same samples. Under equality both counts
    follow a binomial distribution with probability 1/2. For classifiers, this is McNemar's test.
    """
    return [
        {"first": a, "second": b, "p": None, **_test(one, other)}
        for (a, one), (b, other) in combinations(zip(names, runs, strict=True), 2)
    ]


def _test(first: RunRecord, second: RunRecord) -> dict[str, Any]:
    """Return counts and p-value; nothing unless both runs predicted the same samples."""
    if not (first.test and second.test):
        return {}
    ours, theirs = first.predictions, second.predictions
    if ours is None or theirs is None or first.kind != second.kind:
        return {}
    page = page_of_run(first)
    for run in (first, second):
        page.check_predictions(run)
    keys = page.sample_columns(ours)
    if page.sample_columns(theirs) != keys or not ours[keys].equals(theirs[keys]):
        return {}
    scores, others = page.scores(ours), page.scores(theirs)
    if scores is None or others is None:
        return {}
    better, worse = int((scores > others).sum()), int((scores < others).sum())
    return {
        "only_first": better,
        "only_second": worse,
        "p": mcnemar_exact(better, worse),
        "n": len(ours),
    }
