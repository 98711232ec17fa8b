"""The page of a sweep: its jobs, the result of a search, and a comparison of the finished runs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.comparison import comparison_context
from reports.depth.parts import ladders, ranking
from reports.page import environment
from reports.record import read_run
from reports.search_plots import search_plots
from run_folders.files import write_text
from run_folders.kinds import shown_in
from run_folders.sweep import PAGE, Sweep, common_keys
from run_folders.sweep_job import Job

_SIGNIFICANCE = "depth.significance"


def write_sweep_page(path: Path) -> Path:
    """Write the page of a sweep from its folder.

    Args:
        path: The sweep's folder.

    Returns:
        The path of the page: sweep.html in the folder.
    """
    sweep = Sweep(path)
    jobs = sweep.jobs()
    common = common_keys(jobs)
    search = sweep.search
    finished = _best_first([job for job in jobs if job.state == "finished"], search)
    named = [(read_run(path / job.name), _name(job, common)) for job in finished]
    trained = [(run, name) for run, name in named if not run.depth]
    runs, names = [run for run, _ in trained], [name for _, name in trained]
    probed = [(run, name) for run, name in named if run.depth.get("study") == "probe"]
    states = {
        state: sum(job.state == state for job in jobs)
        for state in dict.fromkeys(job.state for job in jobs)
    }
    first_overrides = jobs[0].overrides if jobs else {}
    page = (
        environment()
        .get_template("sweep.html.j2")
        .render(
            title=f"Sweep {path.name}",
            name="/".join(path.resolve().parts[-2:]),
            jobs=[_row(job, common) for job in jobs],
            states=states,
            common={key: value for key, value in first_overrides.items() if key in common},
            headings=_headings(jobs),
            search=search,
            search_plots=search_plots(search) if search else {},
            ranking=ranking([run for run, _ in probed], [name for _, name in probed]),
            ladders=_ladders(path, finished, common),
            compared=bool(runs),
            **(comparison_context(runs, names) if runs else {}),
        )
    )
    target = path / PAGE
    write_text(target, page)
    return target


def _ladders(path: Path, jobs: Sequence[Job], common: set[str]) -> list[dict[str, Any]]:
    """Return the ladders of the jobs that trained a rung."""
    chosen = [job for job in jobs if "depth.rung" in job.overrides]
    return ladders(
        path,
        [read_run(path / job.name) for job in chosen],
        [job.overrides["depth.rung"] for job in chosen],
        [job.label({*common, "depth.rung"}) for job in chosen],
        min((float(job.overrides.get(_SIGNIFICANCE, 0.05)) for job in chosen), default=0.05),
    )


def _best_first(jobs: list[Job], search: Mapping[str, Any]) -> list[Job]:
    """Sort the jobs of a search by its first objective; keep the order of a grid."""
    if not search:
        return jobs
    objective, mode = next(iter(search["objectives"].items()))
    sign = -1 if mode == "max" else 1
    return sorted(jobs, key=lambda job: sign * job.metrics.get(objective, sign * math.inf))


def _name(job: Job, common: set[str]) -> str:
    return f"{job.name}: {job.label(common)}" if job.label(common) else job.name


def _headings(jobs: Sequence[Job]) -> list[tuple[str, str]]:
    """Return key and title of each metric in the table of jobs, if at least one job has it."""
    monitors = dict.fromkeys(job.monitor for job in jobs if job.monitor)
    tested = {f"test/{metric.name}": f"test {metric.title}" for metric in shown_in("sweep")}
    wanted = {**{name: name for name in monitors}, **tested}
    return [
        (name, title) for name, title in wanted.items() if any(name in job.metrics for job in jobs)
    ]


def _row(job: Job, common: set[str]) -> dict[str, Any]:
    """Return a row of the table of jobs."""
    return {"job": job, "label": job.label(common)}
