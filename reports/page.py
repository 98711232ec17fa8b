"""Write the report page of a run, one self-contained HTML file."""

import math
from pathlib import Path

import jinja2
import pandas as pd

from reports import plots
from reports.cost import estimate_rows
from reports.depth.parts import study_context
from reports.kinds.base import page_of_run
from reports.record import RunRecord, read_run
from run_folders.errors import truncation
from run_folders.files import write_text
from run_folders.kinds import kind_named, metric_of, metric_text, shown_in
from run_folders.metrics import LOSS
from run_folders.run_folder import RunFolder
from run_folders.untrusted import damaged

_MAX_RATES = 6


def environment(more: Path | None = None) -> jinja2.Environment:
    """Return the Jinja environment that renders the templates.

    Args:
        more: A further folder of templates; one of Thaw precedes one of the same name.
    """
    folders = [Path(__file__).parent / "templates", *([more] if more else [])]
    loader = jinja2.FileSystemLoader(folders)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["metric"] = _metric
    environment.filters["share"] = lambda value: f"{value:.1%}"
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["thousands"] = _thousands
    environment.globals["truncation"] = truncation
    return environment


def _thousands(value: object) -> str:
    """Format a count; `-` for one that a run lacks."""
    return f"{value:,}" if isinstance(value, int | float) else "-"


def _metric(value: float | jinja2.Undefined | None, key: str = LOSS.name) -> str:
    """Format a metric; `-` for one that a run lacks."""
    return "-" if isinstance(value, jinja2.Undefined) else metric_text(value, key)


def write_report(path: Path) -> Path:
    """Write the page of a run from its folder.

    Args:
        path: The run folder.

    Returns:
        The path of the page: report.html in the folder.
    """
    run = read_run(path)
    target = RunFolder(path).report
    page = page_of_run(run)
    if run.test:
        page.check_predictions(run)
        _check_pictures(run)
    text = (
        environment(page.template_folder)
        .get_template("run.html.j2")
        .render(
            (page.variables(run) if run.test else {})
            | {
                "title": run.name,
                "run": run,
                "main": metric_of(kind_named(run.kind).headline) if run.kind else None,
                "study": study_context(run),
                "estimate": estimate_rows(run),
                "curves": _curves(run),
                "seconds_plot": _seconds_plot(run),
                "sample_noun": page.sample_noun,
                "headline": page.headline(run) if run.test else [],
                "kind_template": page.template,
                "warnings": _warnings(run),
                "epochs": run.history.to_dict("records"),
            }
        )
    )
    write_text(target, text)
    return target


def _check_pictures(run: RunRecord) -> None:
    """Raise `DamagedFileError` if there are pictures of samples that were not predicted."""
    table = run.predictions
    known = set() if table is None or "index" not in table else set(table["index"].tolist())
    if known and not set(run.pictures) <= known:
        raise damaged(RunFolder(run.folder).test_images, "it has pictures of other samples")


def _curves(run: RunRecord) -> dict[str, str]:
    """Return plots over the epochs, title -> SVG."""
    history, drawn = run.history, {}
    for metric in shown_in("curves", run.kind):
        columns = {stage: f"{stage}/{metric.name}" for stage in ("train", "val")}
        lines = {
            stage: line(history, column)
            for stage, column in columns.items()
            if column in history and history[column].notna().any()
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


def _seconds_plot(run: RunRecord) -> str | None:
    if "train/seconds" not in run.history:
        return None
    seconds = line(run.history, "train/seconds")
    return plots.curves({"train": seconds}, "seconds", "training seconds by epoch")


def line(history: pd.DataFrame, column: str) -> tuple[list[float], list[float]]:
    """Return the epochs and the values of a column of the history."""
    return history["epoch"].tolist(), history[column].tolist()


def _warnings(run: RunRecord) -> list[str]:
    lines = []
    if run.state != "finished" and run.status.get("error"):
        ended = "failed" if run.state == "failed" else f"was {run.state}"
        lines.append(f"The run {ended} during {run.status['stage']}: {run.status['error']}")
    if run.plan.get("ended"):
        lines.append(f"{run.plan['ended']}.")
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
