"""The folder of a sweep: its overrides, its jobs and their results."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from run_folders.csv_text import csv_writer
from run_folders.errors import one_line
from run_folders.files import remove_if_empty, write_text
from run_folders.run_folder import RunFolder
from run_folders.sweep_job import DONE, Job, SweepError, is_earlier_attempt, read_job
from run_folders.untrusted import damaged

RECORD, TABLE, SEARCH, PAGE, JOURNAL = (
    "sweep.json",
    "sweep.csv",
    "search.json",
    "sweep.html",
    "study.journal",
)


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def record(self) -> dict[str, Any]:
        """The content of sweep.json; empty if the folder is not a sweep's."""
        return RunFolder(self.path).read_json(RECORD)

    @property
    def search(self) -> dict[str, Any]:
        """The content of search.json; empty if the sweep is not a search."""
        record = RunFolder(self.path).read_json(SEARCH)
        fault = _search_fault(record) if record else ""
        if fault:
            raise damaged(self.path / SEARCH, fault)
        return record

    def check_unused(self) -> None:
        """Check that the folder has no sweep and no run.

        Raises:
            SweepError: If it has.
        """
        if self.record:
            msg = (
                f"hydra.sweep.dir: {self.path} holds a sweep already; resume it with sweep.resume, "
                f"or set another folder"
            )
            raise SweepError(msg)
        if (self.path / "status.json").exists() or self._job_folders():
            msg = f"hydra.sweep.dir: {self.path} holds runs already; set another folder"
            raise SweepError(msg)

    def begin(self, overrides: Sequence[str], flags: Sequence[str] = ()) -> None:
        """Write the start to sweep.json; a resumed sweep keeps its id and start time.

        Args:
            overrides: The overrides of the command line.
            flags: The flags that name the place of configs.
        """
        before = self.record
        now = datetime.now(UTC).isoformat(timespec="seconds")
        kept = {"id": before.get("id", uuid4().hex[:8]), "started": before.get("started", now)}
        started = {"words": list(overrides), "flags": list(flags), "ended": None}
        self._write({**before, **kept, **started})

    def end(self, before: Mapping[str, Any] | None = None, *, keep: bool) -> list[Job]:
        """Write sweep.json and sweep.csv.

        Args:
            before: The content of sweep.json before a start that has run no job; it is restored.
            keep: Whether jobs may still start. Otherwise a sweep without jobs is deleted.

        Returns:
            The jobs that have started.
        """
        jobs = self.jobs()
        if not jobs and not keep:
            self._discard()
        if not jobs:
            return []
        now = datetime.now(UTC).isoformat(timespec="seconds")
        listed = [
            {"name": j.name, "state": j.state, "overrides": j.overrides, "error": j.error}
            for j in jobs
        ]
        self._write({**(before or {**self.record, "ended": now}), "jobs": listed})
        write_text(self.path / TABLE, _table(jobs))
        return jobs

    def versions(self) -> dict[Path, int]:
        """Return the folder of each job, and the time at which its status was written."""
        return {path: (path / "status.json").stat().st_mtime_ns for path in self._job_folders()}

    def _write(self, record: dict[str, Any]) -> None:
        RunFolder(self.path).write_json(RECORD, record)

    def _discard(self) -> None:
        for name in (RECORD, SEARCH, JOURNAL, "multirun.yaml"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path, self.path.parent):
            remove_if_empty(folder)

    def jobs(self) -> list[Job]:
        """Return all jobs that have started, in order of their numbers."""
        found = [read_job(path, self.path) for path in self._job_folders()]
        return sorted(found, key=lambda job: (job.number, job.name))

    def _job_folders(self) -> list[Path]:
        """Return the folders of the jobs, at any depth, without those of earlier attempts."""
        found, waiting = [], [self.path]
        while waiting:
            folders = [path for path in waiting.pop().iterdir() if path.is_dir()]
            runs = [path for path in folders if (path / "status.json").is_file()]
            found += [path for path in runs if not is_earlier_attempt(path)]
            waiting += [path for path in folders if path not in runs and not path.is_symlink()]
        return found


def _search_fault(record: dict[str, Any]) -> str:
    """Return why values of search.json contradict each other, or an empty string."""
    count = len(record["objectives"])
    if not count:
        return "it has no objectives"
    for trial in record["trials"]:
        if trial["state"] == "complete" and len(trial["values"] or ()) != count:
            return f"trial {trial['number']} has not one value for each objective"
        if not all(step.isascii() and step.isdecimal() for step in trial["reported"]):
            return f"trial {trial['number']} has reported values without a number"
    return ""


def common_keys(jobs: Sequence[Job]) -> set[str]:
    """Return the keys that have the same value in all of several jobs."""
    keys = {key for job in jobs for key in job.overrides}
    return {
        key for key in keys if len(jobs) > 1 and len({job.overrides.get(key) for job in jobs}) == 1
    }


def failures(jobs: Sequence[Job]) -> str:
    """Return an error message with a line per unfinished job; empty if all jobs finished."""
    unfinished, common = [job for job in jobs if job.state not in DONE], common_keys(jobs)
    lines = [
        f"  job {one_line(job.name)} ({one_line(job.label(common)) or 'as configured'}): "
        f"{job.error or job.state}"
        for job in unfinished
    ]
    interrupted = sum(job.state not in ("failed", "damaged") for job in unfinished)
    counts = [
        f"{len(unfinished) - interrupted} of {len(jobs)} jobs failed",
        *([f"{interrupted} did not end"] if interrupted else []),
    ]
    return "\n".join([", ".join(counts), *lines]) if unfinished else ""


def _table(jobs: Sequence[Job]) -> str:
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    metrics = list(dict.fromkeys(name for job in jobs for name in job.metrics))
    text = io.StringIO()
    writer = csv_writer(text)
    writer.writerow(["job", "state", *keys, *metrics, "error"])
    for job in jobs:
        values = [job.overrides.get(key, "") for key in keys] + [
            job.metrics.get(name, "") for name in metrics
        ]
        writer.writerow([job.name, job.state, *values, job.error])
    return text.getvalue()
