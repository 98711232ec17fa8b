"""Runs of the entry point in processes of their own, and what is left of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from engine.run_folder import RunFolder
from tests.conftest import ROOT

# Small, without dropout, so that one process and several train alike. The shares of a batch differ, and the last has one sample.
TEXTS = (
    "data.rows={train: 91, val: 33, test: 41}",
    "data.batch_size=9",
    "data.eval_batch_size=8",
    "trainer.max_epochs=2",
    "model.backbone.num_hidden_layers=1",
    "+model.backbone.hidden_dropout_prob=0.0",
    "+model.backbone.attention_probs_dropout_prob=0.0",
    "model.hidden=8",
    "model.dropout=0.0",
)
_LIMIT = 240


def environment(**more: str) -> dict[str, str]:
    """The environment of a fresh process, in which this working tree is found first."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def start(*words: str, launcher: tuple[str, ...] = (), cwd: Path = ROOT, **more: str) -> subprocess.Popen[str]:
    """Start `train.py`, by itself or behind the words of a launcher."""
    command = [*(launcher or (sys.executable,)), str(ROOT / "train.py"), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=environment(**more), text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; what hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def run(*words: str, launcher: tuple[str, ...] = (), cwd: Path = ROOT, **more: str) -> tuple[int, str, str]:
    """Run `train.py` to its end."""
    return ended(start(*words, launcher=launcher, cwd=cwd, **more))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something holds of a running process."""
    deadline = time.monotonic() + _LIMIT
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_of(folder: Path) -> dict[int, int]:
    """Rank -> process id of the living processes that have a run folder among their words."""
    found: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text()
            names = dict(pair.split("=", 1) for pair in (place / "environ").read_text().split("\0") if "=" in pair)
        except OSError:
            continue
        if str(folder) in words and "train.py" in words:
            found[int(names.get("RANK", "-1"))] = int(place.name)
    return found


def kill(process_id: int, signum: signal.Signals) -> None:
    """Send a signal to one process."""
    os.kill(process_id, signum)


def epochs(folder: Path) -> int:
    """How many epochs a run has behind it."""
    return len(RunFolder(folder).read_history())


def sabotage(folder: Path, code: str) -> str:
    """A PYTHONPATH with which every Python process runs some code before anything else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    return f"{folder}{os.pathsep}{ROOT}"
