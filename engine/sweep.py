"""A sweep: the run folders of its jobs, what becomes of each when the sweep goes on, and what all of it came to."""

import csv
import io
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from engine.redaction import HIDDEN
from engine.run_folder import RunFolder, write_text

log = logging.getLogger(__name__)

RECORD, TABLE, SEARCH, PAGE = "sweep.json", "sweep.csv", "search.json", "sweep.html"
_OVERRIDES = "overrides.json"
# What a job is done with; the rest goes on, or runs again.
DONE = ("finished", "pruned")
_STAGES = ("val", "test")
_NOT_OF_THE_JOB = ("sweep.", "hydra.", "hydra/")


class SweepError(ValueError):
    """A sweep cannot go on, or jobs of it failed."""

    is_for_the_user = True


@dataclass(frozen=True)
class Job:
    """One job, as its folder tells.

    Attributes:
        name: Of its folder in the sweep's.
        state: running, finished, pruned, failed or interrupted.
        overrides: Key -> value as typed.
        monitor: The figure that its best epoch was chosen by; empty where it did not get that far.
        figures: `val/acc`, `test/acc`, ..., `parameters/trainable`, `seconds/fit`, ...; of a job without results those of
            validation at its best epoch so far.
        error: One line; empty where there was none.
    """

    name: str
    state: str
    overrides: dict[str, str]
    monitor: str
    figures: dict[str, float]
    error: str

    def words(self, but: Iterable[str] = ()) -> str:
        """The overrides for a person to read, but for these keys; numbers with four digits."""
        return " ".join(f"{key}={_brief(value)}" for key, value in self.overrides.items() if key not in but)

    @property
    def seconds(self) -> float | None:
        """Of training and test."""
        spent = [self.figures[name] for name in ("seconds/fit", "seconds/test") if name in self.figures]
        return sum(spent) if spent else None


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def record(self) -> dict[str, Any]:
        """What sweep.json says; empty where the folder is no sweep's."""
        return RunFolder(self.path).read_json(RECORD)

    @property
    def search(self) -> dict[str, Any]:
        """What search.json says; empty where nothing was searched for."""
        return RunFolder(self.path).read_json(SEARCH)

    def begin(self, words: Iterable[str]) -> None:
        """Write down what was asked for; a sweep that goes on keeps when it began."""
        before = self.record
        now = datetime.now(UTC).isoformat(timespec="seconds")
        kept = {"id": before.get("id", uuid4().hex[:8]), "started": before.get("started", now)}
        self._write({**before, **kept, "words": list(words), "ended": None})

    def end(self, **more: Any) -> list[Job]:  # noqa: ANN401 - JSON
        """Write sweep.json and sweep.csv; `more` is added to the record. Where nothing was run, nothing is left."""
        jobs = self.jobs()
        if not jobs:
            self._discard()
            return []
        now = datetime.now(UTC).isoformat(timespec="seconds")
        listed = [{"name": j.name, "state": j.state, "overrides": j.overrides, "error": j.error} for j in jobs]
        self._write({**self.record, **more, "ended": now, "jobs": listed})
        write_text(self.path / TABLE, _table(jobs))
        return jobs

    def _write(self, record: dict[str, Any]) -> None:
        RunFolder(self.path).write_json(RECORD, record)

    def _discard(self) -> None:
        for name in (RECORD, "multirun.yaml"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path, self.path.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def jobs(self) -> list[Job]:
        """All jobs that began, by number."""
        folders = [path.parent for path in self.path.glob("*/status.json") if path.parent.name.isdigit()]
        return [read_job(path) for path in sorted(folders, key=lambda path: int(path.name))]


def read_job(path: Path) -> Job:
    """Read a job's folder. One that still calls itself running was killed: nobody asks while it runs."""
    folder = RunFolder(path)
    status = folder.read_json("status.json")
    state = str(status.get("state", "interrupted"))
    words: list[str] = folder.read_json(_OVERRIDES).get("words", [])
    overrides = {key.lstrip("+"): value for key, _, value in (word.partition("=") for word in words)}
    config = yaml.safe_load(folder.config.read_text(encoding="utf-8")) if folder.config.is_file() else {}
    monitor = str(config.get("monitor", ""))
    return Job(
        name=path.name,
        state="interrupted" if state == "running" else state,
        overrides=overrides,
        monitor=monitor,
        figures=_figures(folder, monitor, str(config.get("mode"))),
        error=status.get("error") or "",
    )


def _figures(folder: RunFolder, monitor: str, mode: str) -> dict[str, float]:
    metrics = folder.read_json("metrics.json")
    if not metrics:
        return _best_so_far(folder.read_history(), monitor, mode)
    parts = {name: metrics.get(name) or {} for name in (*_STAGES, "best", "parameters", "seconds")}
    return {
        f"{part}/{name}": value
        for part, values in parts.items()
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def enter_job(folder: RunFolder, words: Sequence[str]) -> str | None:
    """Take over a job's folder, whatever it holds.

    Args:
        folder: The job's.
        words: Its overrides, without secrets.

    Returns:
        `done` where there is nothing left to do, `last` where the job goes on from its last checkpoint, None where it begins.
    """
    state = folder.read_json("status.json").get("state")
    own = [word for word in words if not word.lstrip("+").startswith(_NOT_OF_THE_JOB)]
    if state in DONE:
        _tell_other_words(folder, own)
        return "done"
    going_on = state in ("interrupted", "running") and folder.last_checkpoint.is_file()
    if state is not None and not going_on and folder.writes:
        _set_aside(folder.path)
    folder.write_json(_OVERRIDES, {"words": own})
    return "last" if going_on else None


def _tell_other_words(folder: RunFolder, words: Sequence[str]) -> None:
    before = folder.read_json(_OVERRIDES).get("words", [])
    was, now = [w for w in before if w not in words], [w for w in words if w not in before]
    if was or now:
        what = f"job {folder.path.name} was run with {' '.join(was) or 'fewer words'} and stays so"
        log.warning("%s; begin a new sweep for %s", what, " ".join(now) or "the rest")


def _set_aside(path: Path) -> None:
    """Keep what an attempt left under another name: the job runs again in a folder of its own."""
    attempt = 1
    while (kept := path.with_name(f"{path.name}_attempt_{attempt}")).exists():
        attempt += 1
    path.rename(kept)
    path.mkdir()
    log.info("job %s runs again; what it left is in %s", path.name, kept.name)


def resumed_words(words: Sequence[str]) -> list[str]:
    """The command line of a sweep that goes on.

    Args:
        words: What was typed, with `sweep.resume=FOLDER`.

    Returns:
        What was typed when the sweep began, what was typed now, and the folder.

    Raises:
        SweepError: If the folder is no sweep's.
    """
    prefix = "sweep.resume="
    path = Path(next(word.removeprefix(prefix) for word in reversed(words) if word.startswith(prefix))).expanduser()
    record = Sweep(path).record
    if "words" not in record:
        msg = f"sweep.resume={path}: no sweep is there (it has no {RECORD}); give a folder such as runs/sweeps/NAME/STAMP"
        raise SweepError(msg)
    before = [word for word in record["words"] if HIDDEN not in word]
    for word in record["words"]:
        if HIDDEN in word:
            key = word.partition("=")[0].lstrip("+")
            print(f"{key} was not kept, as it is secret; give it again where it is needed", file=sys.stderr)  # Hydra logs later
    now = [word for word in words if not word.startswith(prefix) and word not in ("-m", "--multirun")]
    return ["-m", *before, *now, f"hydra.sweep.dir={path.resolve()}"]


def _brief(value: str) -> str:
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value


def common_keys(jobs: Sequence[Job]) -> set[str]:
    """The keys that are the same in every one of several jobs, and so tell none apart."""
    keys = {key for job in jobs for key in job.overrides}
    return {key for key in keys if len(jobs) > 1 and len({job.overrides.get(key) for job in jobs}) == 1}


def failures(jobs: Sequence[Job]) -> str:
    """What a person is told of failed jobs, a line each; empty where none failed."""
    failed, common = [job for job in jobs if job.state == "failed"], common_keys(jobs)
    lines = [f"  job {job.name} ({job.words(common) or 'as configured'}): {job.error}" for job in failed]
    return "\n".join([f"{len(failed)} of {len(jobs)} jobs failed", *lines]) if failed else ""


def _best_so_far(history: list[dict[str, str]], monitor: str, mode: str) -> dict[str, float]:
    rows = [row for row in history if row.get(monitor)]
    if not rows:
        return {}
    best = (max if mode == "max" else min)(rows, key=lambda row: float(row[monitor]))
    return {key: float(value) for key, value in best.items() if key.startswith("val/") and value}


def _table(jobs: Sequence[Job]) -> str:
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    figures = list(dict.fromkeys(name for job in jobs for name in job.figures))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", "state", *keys, *figures, "error"])
    for job in jobs:
        values = [job.overrides.get(key, "") for key in keys] + [job.figures.get(name, "") for name in figures]
        writer.writerow([job.name, job.state, *values, job.error])
    return text.getvalue()
