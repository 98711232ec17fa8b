"""A job of a sweep: what its run folder tells, and what becomes of what it holds when the sweep goes on."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from run_folders.errors import UserError
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)

# What a job is done with; the rest goes on, or runs again.
DONE = ("finished", "pruned")
# Words that say nothing of what a job trains.
NOT_OF_THE_JOB = ("sweep.", "hydra.", "hydra/")
_OVERRIDES = "overrides.json"
_STAGES = ("val", "test")


class SweepError(UserError, ValueError):
    """A sweep cannot go on, or jobs of it did not come to their end."""


@dataclass(frozen=True)
class Job:
    """One job, as its folder tells.

    Attributes:
        name: Of its folder in the sweep's.
        state: running, finished, pruned, failed or interrupted.
        overrides: Key -> value as typed.
        monitor: The metric that its best epoch was chosen by; empty where it did not get that far.
        metrics: `val/acc`, `test/acc`, ..., `parameters/trainable`, `seconds/fit`, ...; of a job
            without results those of validation at its best epoch so far.
        error: One line; empty where there was none.
    """

    name: str
    state: str
    overrides: dict[str, str]
    monitor: str
    metrics: dict[str, float]
    error: str

    def label(self, but: Iterable[str] = ()) -> str:
        """The overrides for a person to read, but for these keys; numbers with four digits."""
        return " ".join(
            f"{key}={_brief(value)}" for key, value in self.overrides.items() if key not in but
        )

    @property
    def seconds(self) -> float | None:
        """Of training and test."""
        spent = [
            self.metrics[name] for name in ("seconds/fit", "seconds/test") if name in self.metrics
        ]
        return sum(spent) if spent else None


def read_job(path: Path) -> Job:
    """Read a job's folder. One that calls itself running, and in which no process is, was killed."""
    folder = RunFolder(path)
    status = folder.read_json("status.json")
    state = str(status.get("state", "interrupted"))
    if state == "running" and not folder.is_held:
        state = "interrupted"
    typed: list[str] = folder.read_json(_OVERRIDES).get("words", [])
    overrides = {
        key.lstrip("+"): value for key, _, value in (override.partition("=") for override in typed)
    }
    config = (
        yaml.safe_load(folder.config.read_text(encoding="utf-8")) if folder.config.is_file() else {}
    )
    monitor = str(config.get("monitor", ""))
    return Job(
        name=path.name,
        state=state,
        overrides=overrides,
        monitor=monitor,
        metrics=_metrics(folder, monitor, str(config.get("mode"))),
        error=status.get("error") or "",
    )


def _metrics(folder: RunFolder, monitor: str, mode: str) -> dict[str, float]:
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


def enter_job(folder: RunFolder, overrides: Sequence[str]) -> str | None:
    """Take over a job's folder, whatever it holds.

    Raises:
        SweepError: If the job is still going on there.

    Args:
        folder: The job's.
        overrides: Without secrets.

    Returns:
        `done` where there is nothing left to do, `last` where the job goes on from its last
        checkpoint, None where it begins.
    """
    state = folder.read_json("status.json").get("state")
    own = [
        override for override in overrides if not override.lstrip("+").startswith(NOT_OF_THE_JOB)
    ]
    if state in DONE:
        _warn_of_other_overrides(folder, own)
        return "done"
    if state == "running" and folder.writes and folder.is_held:
        msg = "still going on in another process; wait for it, or stop it first"
        raise SweepError(msg)
    going_on = state in ("interrupted", "running") and folder.last_checkpoint.is_file()
    if state is not None and not going_on and folder.writes:
        _set_aside(folder.path)
    folder.write_json(_OVERRIDES, {"words": own})
    return "last" if going_on else None


def _warn_of_other_overrides(folder: RunFolder, overrides: Sequence[str]) -> None:
    before = folder.read_json(_OVERRIDES).get("words", [])
    was, now = [o for o in before if o not in overrides], [o for o in overrides if o not in before]
    if was or now:
        what = (
            f"job {folder.path.name} was run with {' '.join(was) or 'fewer overrides'} and stays so"
        )
        log.warning("%s; begin a new sweep for %s", what, " ".join(now) or "the rest")


def _set_aside(path: Path) -> None:
    """Keep what an attempt left under another name: the job runs again in a folder of its own."""
    attempt = 1
    while (kept := path.with_name(f"{path.name}_attempt_{attempt}")).exists():
        attempt += 1
    path.rename(kept)
    path.mkdir()
    log.info("job %s runs again; what it left is in %s", path.name, kept.name)


def leave_error(folder: RunFolder, error: str) -> None:
    """Write an error down where the run itself could not. What was interrupted and cannot go on yet stays so."""
    status = folder.read_json("status.json")
    if folder.is_held or status.get("state") in (*DONE, "failed"):
        return
    state = (
        "interrupted"
        if status.get("state") == "interrupted" and folder.last_checkpoint.is_file()
        else "failed"
    )
    if status.get("error") != error:
        folder.write_status(state, status.get("stage", "setup"), error)


def _best_so_far(history: list[dict[str, str]], monitor: str, mode: str) -> dict[str, float]:
    rows = [row for row in history if row.get(monitor)]
    if not rows:
        return {}
    best = (max if mode == "max" else min)(rows, key=lambda row: float(row[monitor]))
    metrics = {key: float(value) for key, value in best.items() if key.startswith("val/") and value}
    return {**metrics, "seconds/fit": round(sum(float(row["seconds"]) for row in history), 3)}


def _brief(value: str) -> str:
    try:
        return f"{float(value):.4g}" if "." in value else value
    except ValueError:
        return value
