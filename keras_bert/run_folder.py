"""The record of a run, in the files and under the keys that Thaw's reports read."""

import csv
import hashlib
import io
import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from keras_bert.errors import KerasBertError

_PACKAGES = ("thaw", "tensorflow", "keras", "tokenizers", "scikit-learn", "numpy", "pandas")


class RunFolder:
    """Files of one run; each is written beside its place and moved there, whole."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.best, self.last = self.path / "checkpoints" / "best.keras", self.path / "checkpoints" / "last.npz"
        self.config, self.predictions = self.path / "config.yaml", self.path / "predictions" / "test.parquet"

    def write(self, path: Path, save: Callable[[Path], Any]) -> None:
        """Let `save` write a file of that name elsewhere in the folder, then move it to its place."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".part.{path.name}")
        try:
            save(part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file in UTF-8."""
        self.write(self.path / name, lambda part: part.write_text(text, encoding="utf-8", errors="backslashreplace"))

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write JSON; NaN is none."""
        self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read JSON; nothing where the run did not get that far."""
        path = self.path / name
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            msg = f"{path} is damaged: {error}"
            raise KerasBertError(msg) from error
        return content

    def write_config(self, content: dict[str, Any]) -> None:
        """Write config.yaml."""
        self.write_text("config.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def read_config(self) -> dict[str, Any]:
        """Read config.yaml.

        Raises:
            KerasBertError: If this is no run folder of keras_bert.
        """
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError):
            content = None
        if not isinstance(content, dict) or "command" not in content:
            msg = f"{self.path} is no run folder of keras_bert: it has no config.yaml of one"
            raise KerasBertError(msg)
        return content

    def write_status(self, state: str, stage: str, error: str | None = None) -> None:
        """Say how the run stands: running, finished, failed or interrupted; in setup, fit, test or report; and why."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        started = self.read_json("status.json").get("started", now)
        ended = None if state == "running" else now
        self.write_json("status.json", {"state": state, "stage": stage, "error": error, "started": started, "ended": ended})

    def read_history(self) -> list[dict[str, str]]:
        """One dict an epoch, values as text."""
        path = self.path / "history.csv"
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))) if path.is_file() else []

    def write_history(self, rows: list[dict[str, str]]) -> None:
        """Write all epochs."""
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        self.write_text("history.csv", text.getvalue())


def provenance(seed: int, data: dict[str, Any], gpus: list[str]) -> dict[str, Any]:
    """Where a run came from: code, versions, hardware, seed and data.

    Args:
        seed: The run's.
        data: Split -> rows and hash.
        gpus: Names of the devices.

    Returns:
        What provenance.json holds.
    """
    return {"git": _git(), "versions": _versions(), "hardware": _hardware(gpus), "seed": seed, "data": data}


def fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 of texts in order."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _git() -> dict[str, Any]:
    def ask(*words: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).resolve().parent), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            return None

    changes = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def _versions() -> dict[str, str]:
    installed = {distribution.metadata["Name"].lower(): distribution.version for distribution in metadata.distributions()}
    return {"python": platform.python_version(), **{name: installed.get(name, "not installed") for name in _PACKAGES}}


def _hardware(gpus: list[str]) -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.is_file() else None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "system": platform.platform(),
        "cpu": model[1] if model else platform.processor(),
        "cpu_count": os.cpu_count(),
        "threads": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": gpus,
    }
