"""One job of a sweep: read its run folder, and prepare the folder when the sweep resumes."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_folders.errors import UserError
from run_folders.kinds import metric_of
from run_folders.run_folder import RunFolder
from run_folders.untrusted import DamagedFileError, read_yaml

log = logging.getLogger(__name__)

# States of completed jobs. Jobs in other states are resumed or run again.
DONE = ("finished", "pruned")
# Prefixes of overrides that do not change what a job trains.
INTERNAL_OVERRIDES = ("sweep.", "hydra.", "hydra/")
_OVERRIDES = "overrides.json"
_ATTEMPT = "_attempt_"
_STAGES = ("val", "test")


class SweepError(UserError, ValueError):
    """A sweep that cannot be resumed, or has jobs that did not finish."""


@dataclass(frozen=True)
class Job:
    """One job, as recorded in its folder.

    Attributes:
        name: The path of its folder in the sweep's folder.
        number: Its number in the sweep.
        state: running, finished, pruned, failed, interrupted, or damaged if a file of it is.
        overrides: Key -> value as typed.
        monitor: The metric that selects the best epoch; empty if the job has no config yet.
        metrics: `val/acc`, `test/acc`, ..., `parameters/trainable`, `seconds/fit`, ... A job
            without results has the validation metrics of its best epoch so far.
        error: One line; empty if there was no error.
    """

    name: str
    number: int
    state: str
    overrides: dict[str, str]
    monitor: str
    metrics: dict[str, float]
    error: str

    def label(self, exclude: Iterable[str] = ()) -> str:
        """Return the overrides without these keys; floats have four significant digits."""
        return " ".join(
            f"{key}={_rounded(value)}"
            for key, value in self.overrides.items()
            if key not in exclude
        )

    @property
    def seconds(self) -> float | None:
        """Duration of training and test in seconds; None if neither is known."""
        spent = [
            self.metrics[name] for name in ("seconds/fit", "seconds/test") if name in self.metrics
        ]
        return sum(spent) if spent else None


def read_job(path: Path, sweep: Path) -> Job:
    """Read a job from its folder.

    A job counts as interrupted if its status is running but no process has locked its folder.

    Args:
        path: The job's folder.
        sweep: The sweep's folder.
    """
    name, number = (
        path.relative_to(sweep).as_posix(),
        int(path.name) if path.name.isdecimal() else 0,
    )
    try:
        return _read(RunFolder(path), name, number)
    except DamagedFileError as error:
        return Job(name, number, "damaged", {}, "", {}, str(error))


def _read(folder: RunFolder, name: str, number: int) -> Job:
    status = folder.read_json("status.json")
    state = str(status.get("state", "interrupted"))
    if state == "running" and not folder.is_locked:
        state = "interrupted"
    recorded = folder.read_json(_OVERRIDES)
    typed: list[str] = recorded.get("words", [])
    overrides = {
        key.lstrip("+"): value for key, _, value in (override.partition("=") for override in typed)
    }
    config = read_yaml(folder.config, dict[str, Any]) if os.path.lexists(folder.config) else {}
    monitor = str(config.get("monitor", ""))
    return Job(
        name=name,
        number=recorded.get("number", number),
        state=state,
        overrides=overrides,
        monitor=monitor,
        metrics=_metrics(folder, monitor),
        error=status.get("error") or "",
    )


def _metrics(folder: RunFolder, monitor: str) -> dict[str, float]:
    metrics = folder.read_json("metrics.json")
    if not metrics:
        return _best_so_far(folder.read_history(), monitor)
    parts = {name: metrics.get(name) or {} for name in (*_STAGES, "best", "parameters", "seconds")}
    return {
        f"{part}/{name}": value
        for part, values in parts.items()
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _own(overrides: Iterable[str]) -> list[str]:
    """Return the overrides that change what a job trains."""
    return [text for text in overrides if not text.lstrip("+").startswith(INTERNAL_OVERRIDES)]


def check_own_folder(folder: RunFolder, overrides: Sequence[str], number: int) -> None:
    """Check that a job's folder is not that of another job of the sweep.

    Args:
        folder: The job's folder.
        overrides: The job's overrides, without secrets.
        number: The job's number in the sweep.

    Raises:
        SweepError: If it is.
    """
    before = folder.read_json(_OVERRIDES)
    if before.get("number", number) != number and before["words"] != _own(overrides):
        msg = (
            f"hydra.sweep.subdir: {folder.path} is the folder of job {before['number']}; "
            f"add ${{hydra.job.num}}, so that each job has its own"
        )
        raise SweepError(msg)


def prepare_job(
    folder: RunFolder,
    overrides: Sequence[str],
    number: int,
    translate: Callable[[Iterable[str]], list[str]] = list,
) -> str | None:
    """Prepare a job's folder for running the job, whatever the folder contains.

    Args:
        folder: The job's folder.
        overrides: The job's overrides, without secrets.
        number: The job's number in the sweep.
        translate: Turns the folder's overrides into their present form.

    Returns:
        `done` if the job is complete, `last` if it resumes from its last checkpoint, None if it
        starts from the beginning.

    Raises:
        SweepError: If the job is still running in another process.
    """
    folder.check_entries()
    state = folder.read_json("status.json").get("state")
    own = _own(overrides)
    if state in DONE:
        before = translate(folder.read_json(_OVERRIDES).get("words", []))
        _warn_of_other_overrides(folder.path.name, before, own)
        return "done"
    if state == "running" and folder.writes and folder.is_locked:
        msg = "still running in another process; wait for it, or stop it first"
        raise SweepError(msg)
    begun = folder.last_checkpoint.is_file() or folder.rungs.is_dir()
    resumes = state in ("interrupted", "running") and begun
    if state is not None and not resumes and folder.writes:
        _set_aside(folder.path)
    folder.write_json(_OVERRIDES, {"words": own, "number": number})
    return "last" if resumes else None


def _warn_of_other_overrides(name: str, before: Sequence[str], overrides: Sequence[str]) -> None:
    was, now = [o for o in before if o not in overrides], [o for o in overrides if o not in before]
    if was or now:
        log.warning(
            "job %s keeps its result: it ran with %s and now has %s; start a new sweep for that",
            name,
            " ".join(was) or "(none)",
            " ".join(now) or "(none)",
        )


def is_earlier_attempt(path: Path) -> bool:
    """Return whether `prepare_job` has set a folder aside."""
    name, marker, attempt = path.name.rpartition(_ATTEMPT)
    return bool(marker) and attempt.isdecimal() and path.with_name(name).is_dir()


def _set_aside(path: Path) -> None:
    """Rename the folder of an earlier attempt; the job runs again in a new folder."""
    attempt = 1
    while (kept := path.with_name(f"{path.name}{_ATTEMPT}{attempt}")).exists():
        attempt += 1
    path.rename(kept)
    path.mkdir()
    log.info("job %s runs again; the earlier attempt is in %s", path.name, kept.name)


def record_error(folder: RunFolder, error: str) -> None:
    """Write an error to status.json if the run itself could not.

    An interrupted job that can be resumed stays interrupted. A damaged status.json stays as it is.
    """
    before = folder.state
    if folder.is_locked or before in (*DONE, "failed", "damaged"):
        return
    status = folder.read_json("status.json")
    resumable = before == "interrupted" and folder.last_checkpoint.is_file()
    if status.get("error") != error:
        state = "interrupted" if resumable else "failed"
        folder.write_status(state, status.get("stage", "setup"), error)


def _best_so_far(history: list[dict[str, str]], monitor: str) -> dict[str, float]:
    rows = [row for row in history if row.get(monitor)]
    if not rows:
        return {}
    best = (max if metric_of(monitor).better == "max" else min)(
        rows, key=lambda row: float(row[monitor])
    )
    metrics = {key: float(value) for key, value in best.items() if key.startswith("val/") and value}
    seconds = sum(float(row.get("seconds") or 0) for row in history)
    return {**metrics, "seconds/fit": round(seconds, 3)}


def _rounded(value: str) -> str:
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value
