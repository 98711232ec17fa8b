"""What a run folder holds, how it is written (atomically) and read. Standard library only at the top."""

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from run_folders.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that readers see the old one or the new one, never a part.

    Args:
        path: The file; its folder is made.
        write: Called with a temporary name in the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def link_atomically(source: Path, path: Path) -> None:
    """Give a file a second name, as `write_atomically` writes one; a copy, where the file system has no second names.

    What is written in place of the one later leaves the other as it is.

    Args:
        source: The file.
        path: Its further name, in the same folder.
    """

    def link(temporary: Path) -> None:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    write_atomically(path, link)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; what UTF-8 cannot hold is written as an escape."""
    write_atomically(
        path,
        lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"),
    )  # type: ignore[arg-type]


def _locked(handle: int) -> bool:
    """Take the lock of an open folder; it is let go when that is closed. A file system without locks always gives it."""
    from filelock import (
        lock_descriptor,
    )  # slow to import, and most who read a run folder ask for no lock

    try:
        return lock_descriptor(handle, blocking=False)
    except OSError:
        return True


class RunFolderError(UserError, ValueError):
    """The folder does not hold what is asked of it."""


class RunFolder:
    """The record of one run: what is not in it did not happen.

    Attributes:
        path: The folder.
        writes: Whether this process writes it; of several that train together only one does.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path.resolve()
        self.writes = writes

    @property
    def best_checkpoint(self) -> Path:
        """Weights of the epoch with the best monitored metric."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """Everything that the next epoch needs."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def config(self) -> Path:
        """The resolved config, secrets redacted."""
        return self.path / "config.yaml"

    @property
    def predictions(self) -> Path:
        """One row a test sample."""
        return self.path / "predictions" / "test.parquet"

    @property
    def test_images(self) -> Path:
        """Small pictures of some test samples: index, PNG. Only where samples are pictures."""
        return self.path / "predictions" / "test_images.parquet"

    @property
    def report(self) -> Path:
        """The page a person reads."""
        return self.path / "report.html"

    @property
    def skipped_rows(self) -> Path:
        """The rows that `on_bad_rows=skip` dropped."""
        return self.path / "skipped_rows.csv"

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write `name`; NaN and infinity are not JSON and raise `ValueError`."""
        if self.writes:
            write_text(
                self.path / name,
                json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            )

    def read_json(self, name: str) -> dict[str, Any]:
        """Read `name`, or an empty dict where the run did not get that far; raises `RunFolderError` where it is damaged."""
        path = self.path / name
        try:
            content: dict[str, Any] = (
                json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            )
        except ValueError as error:
            msg = f"{path} is damaged: {error}"
            raise RunFolderError(msg) from error
        return content

    @property
    def is_unfinished(self) -> bool:
        """Whether it holds a run that did not come to its end."""
        return bool(self.read_json("status.json").get("state", "finished") != "finished")

    def begin(self, ckpt_path: str | None) -> None:
        """Mark the folder as running. A run that goes on keeps its status until it does.

        Args:
            ckpt_path: None, last, or the path of a checkpoint.

        Raises:
            RunFolderError: If another run's record would be overwritten.
        """
        inside = ckpt_path == "last" or (
            ckpt_path is not None and Path(ckpt_path).resolve().is_relative_to(self.path)
        )
        held = (self.path / "status.json").exists()
        if held and not inside:
            msg = f"{self.path} holds a run already: give ckpt_path=last to go on with it, or another hydra.run.dir"
            raise RunFolderError(msg)
        if not held:
            self.write_status("running", "setup")

    def write_status(self, state: str, stage: str, error: str | None = None) -> None:
        """Say where the run stands.

        Args:
            state: running, finished, failed, interrupted, or pruned by a search.
            stage: setup, fit, test or report.
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
        """Write how the run ended, unless one of its processes has; each of them may."""
        status = self.read_json("status.json")
        if status.get("state") == "running":
            RunFolder(self.path).write_status(state, status["stage"], error)

    def read_history(self) -> list[dict[str, str]]:
        """One dict an epoch, values as text so that metrics keep every digit."""
        path = self.path / "history.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def write_history(self, rows: list[dict[str, str]]) -> None:
        """Write all epochs; a metric that some epoch lacks is empty there."""
        self.write_table(self.path / "history.csv", rows)

    def write_table(self, path: Path, rows: list[dict[str, str]]) -> None:
        """Write rows of text as CSV, columns in order of first appearance."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        if self.writes:
            write_text(path, text.getvalue())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out while a run is in the folder; whatever ends this one lets go of it.

        Raises:
            RunFolderError: If a run is in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDONLY)
        try:
            if not _locked(handle):
                msg = f"{self.path}: a run is still going on in it; wait for it, or stop it first"
                raise RunFolderError(msg)
            yield
        finally:
            os.close(handle)

    @property
    def is_held(self) -> bool:
        """Whether some process has a run in it, as far as the file system can tell."""
        if not self.path.is_dir():
            return False
        handle = os.open(self.path, os.O_RDONLY)
        try:
            return not _locked(handle)
        finally:
            os.close(handle)

    def discard_unless_run(self) -> None:
        """Leave nothing behind where nothing was run."""
        if (self.path / "status.json").exists():
            return
        (self.path / "train.log").unlink(missing_ok=True)
        for folder in (self.path, self.path.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
