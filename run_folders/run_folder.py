"""The run folder: its files, and how they are read and written atomically."""

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from run_folders.csv_text import csv_writer
from run_folders.errors import UserError, brief, shortened
from run_folders.files import remove_if_empty, write_text
from run_folders.record_types import RECORD_TYPES, history_fault
from run_folders.untrusted import DamagedFileError, damaged, read_json, read_text

_MAX_HISTORY = 256 * 2**20  # bytes


def _try_lock(handle: int) -> bool:
    """Try to lock an open folder, and return whether that succeeded.

    Closing the handle releases the lock. Without locks in the file system it always succeeds.
    """
    # Imported here because it is slow, and most readers of a run folder need no lock.
    from filelock import lock_descriptor

    try:
        return lock_descriptor(handle, blocking=False)
    except OSError:
        return True


class RunFolderError(UserError, ValueError):
    """A run folder that is damaged, in use, or lacks what is needed."""


class RunFolder:
    """The record of one run. Reports and dashboards show only what it contains.

    Attributes:
        path: The folder.
        writes: Whether this process writes to it. In distributed training only one process does.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path.resolve()
        self.writes = writes

    @property
    def best_checkpoint(self) -> Path:
        """The weights of the epoch with the best monitored metric."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """The full training state after the last epoch."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def config(self) -> Path:
        """The resolved config with redacted secrets."""
        return self.path / "config.yaml"

    @property
    def predictions(self) -> Path:
        """The test predictions, one row per sample."""
        return self.predictions_of("test")

    def predictions_of(self, split: str) -> Path:
        """Return the file of the predictions of `val` or `test`, one row per sample.

        Both are those of the best checkpoint.
        """
        return self.path / "predictions" / f"{split}.parquet"

    @property
    def test_images(self) -> Path:
        """Small pictures of some test samples with their indices; only for image data."""
        return self.path / "predictions" / "test_images.parquet"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def rungs(self) -> Path:
        """The folder of the runs of a ladder; see `engine.depth.ladder`."""
        return self.path / "rungs"

    @property
    def is_rung(self) -> bool:
        """Whether the run is a rung, which resumes with its ladder."""
        return self.path.parent.name == "rungs" and (self.path.parents[1] / "config.yaml").exists()

    @property
    def skipped_rows(self) -> Path:
        """The rows that `on_bad_rows=skip` dropped."""
        return self.path / "skipped_rows.csv"

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file.

        Raises:
            ValueError: If the content has NaN or infinity, which JSON lacks.
        """
        if self.writes:
            write_text(
                self.path / name,
                json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            )

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file; return an empty dict if the run has not written it.

        Raises:
            DamagedFileError: If the file is damaged, or not what `record_types` states.
        """
        path = self.path / name
        if not os.path.lexists(path):
            return {}
        content: dict[str, Any] = read_json(path, RECORD_TYPES.get(name, dict))
        return content

    @property
    def state(self) -> str | None:
        """The state in status.json; `damaged` if the file is, None if there is none."""
        try:
            state: str | None = self.read_json("status.json").get("state")
        except DamagedFileError:
            return "damaged"
        return state

    def no_run(self, missing: str, advice: str = "") -> RunFolderError:
        """Return the error for a folder without a run; it names the runs in it, newest first.

        Args:
            missing: The file that a run folder would have.
            advice: Next step for the user, if there are no runs in it.
        """
        begun = self.path.glob("*/status.json")
        inside = sorted(begun, key=lambda path: path.lstat().st_mtime, reverse=True)
        if inside:
            names = shortened(path.parent.name for path in inside)
            advice = f"; it holds runs: {names}; give one of them"
        return RunFolderError(f"{self.path} is no run folder: it has no {missing}{advice}")

    @property
    def is_unfinished(self) -> bool:
        """Whether the folder has a run that has not finished."""
        return bool(self.read_json("status.json").get("state", "finished") != "finished")

    def begin(self, ckpt_path: str | None) -> None:
        """Mark the folder as running; a resumed run keeps its status until it continues.

        Args:
            ckpt_path: None, last, or the path of a checkpoint.

        Raises:
            RunFolderError: If the record of another run would be overwritten.
            DamagedFileError: If an entry of the folder could block the run; see `check_entries`.
        """
        self.check_entries()
        inside = ckpt_path == "last" or (
            ckpt_path is not None and Path(ckpt_path).resolve().is_relative_to(self.path)
        )
        # A run without a complete epoch starts again with its recorded config.
        resumable = self.last_checkpoint.exists() or self.config.is_file()
        if ckpt_path == "last" and not resumable:
            advice = "set another hydra.run.dir" if self._has_results else "leave ckpt_path out"
            msg = (
                f"ckpt_path=last: {self.path} has no checkpoint to resume from; "
                f"{advice} to start a run"
            )
            raise RunFolderError(msg)
        if self._has_results and not inside:
            resume = "set ckpt_path=last to resume it, or " * resumable
            msg = f"{self.path} holds a run already: {resume}set another hydra.run.dir"
            raise RunFolderError(msg)
        if not self._has_results:
            # What a run that ended before its results has left is no part of this one.
            for name in ("status.json", "provenance.json"):
                (self.path / name).unlink(missing_ok=True)
            self.write_status("running", "setup")

    @property
    def _has_results(self) -> bool:
        """Whether a run has left something that another one would overwrite."""
        files = [self.path / name for name in ("history.csv", "metrics.json", "depth.json")]
        return any(
            file.exists()
            for file in (*files, self.rungs, self.best_checkpoint, self.last_checkpoint)
        )

    def check_entries(self) -> None:
        """Raise `DamagedFileError` if the folder has a pipe or a device: opening it could wait."""
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.exists() and not (path.is_file() or path.is_dir()):
                msg = f"{path} is a pipe or a device, where a file is needed; remove it"
                raise DamagedFileError(msg)

    def write_status(self, state: str, stage: str, error: str | None = None) -> None:
        """Write the state and the stage of the run.

        Args:
            state: running, finished, failed, interrupted, or pruned by a search.
            stage: setup, features, fit, validate, test or report.
            error: One line, for a run that did not finish.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        started = self.read_json("status.json").get("started", now)
        ended = None if state == "running" else now
        status = {
            "state": state,
            "stage": stage,
            "error": error,
            "started": started,
            "ended": ended,
        }
        self.write_json("status.json", status)

    def write_end_if_missing(self, state: str, error: str) -> None:
        """Write how the run ended, unless another process of the run already has.

        Every process may call this, whatever its `writes`.
        """
        status = self.read_json("status.json")
        if status.get("state") == "running":
            RunFolder(self.path).write_status(state, status["stage"], error)

    def read_history(self) -> list[dict[str, str]]:
        """Return one dict per epoch; values stay text so that metrics keep every digit.

        Raises:
            DamagedFileError: If the file is damaged.
        """
        path = self.path / "history.csv"
        if not os.path.lexists(path):
            return []
        text = read_text(path, _MAX_HISTORY)
        try:
            header, *lines = csv.reader(text.splitlines(), strict=True)
        except (ValueError, csv.Error) as error:  # ValueError: there is no header
            raise damaged(path, brief(error)) from error
        fault = history_fault(header, lines)
        if fault:
            raise damaged(path, fault)
        return [dict(zip(header, line, strict=True)) for line in lines]

    def write_history(self, rows: list[dict[str, str]]) -> None:
        """Write all epochs; the cell of a metric that an epoch lacks is empty."""
        self.write_table(self.path / "history.csv", rows)

    def write_table(self, path: Path, rows: list[dict[str, str]]) -> None:
        """Write rows of text as CSV, with columns in order of first appearance."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        text = io.StringIO()
        writer = csv_writer(text)
        writer.writerow(columns)
        writer.writerows([row.get(column, "") for column in columns] for row in rows)
        if self.writes:
            write_text(path, text.getvalue())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other processes; the lock ends with the process at the latest.

        Raises:
            RunFolderError: If another process has locked it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDONLY)
        try:
            if not _try_lock(handle):
                msg = f"{self.path}: a run is still going on in it; wait for it, or stop it first"
                raise RunFolderError(msg)
            yield
        finally:
            os.close(handle)

    @property
    def is_locked(self) -> bool:
        """Whether a process has locked the folder, as far as the file system can tell."""
        if not self.path.is_dir():
            return False
        handle = os.open(self.path, os.O_RDONLY)
        try:
            return not _try_lock(handle)
        finally:
            os.close(handle)

    def discard_unless_run(self) -> None:
        """Delete the log and the empty folders if no run started here."""
        if (self.path / "status.json").exists():
            return
        (self.path / "train.log").unlink(missing_ok=True)
        for folder in (self.path, self.path.parent):
            remove_if_empty(folder)
