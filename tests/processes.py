"""Starts processes for tests, and reads their outputs and exit codes.

`start` and `run` ask a process server (tests/process_server.py). Its processes have imported
everything already, so they start at once. A test cannot change variables that are read when an
interpreter starts or when a module is imported, because the server has read them:
OMP_NUM_THREADS, PYTHONPATH (also sitecustomize), PYTHONWARNINGS, MPLCONFIGDIR, HF_HOME,
KERAS_BACKEND. Processes that such a process starts itself are new interpreters and read all of
them. `start_cold` starts a new interpreter, and so does a launcher that runs `train.py`.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from run_folders.run_folder import RunFolder
from tests.process_server import Job

ROOT = Path(__file__).resolve().parent.parent
_PLACE = "THAW_TEST_PROCESSES"  # environment variable: folder in which the servers listen
# Small and without dropout, so that one process and several train alike. The ranks' shares of a
# batch differ in size, and the last batch has one sample.
TEXTS = (
    "data.rows={train: 91, val: 33, test: 41}",
    "data.batch_size=9",
    "data.eval_batch_size=8",
    "trainer.max_epochs=2",
    "model.backbone.num_hidden_layers=1",
    "+model.backbone.hidden_dropout_prob=0.0",
    "+model.backbone.attention_probs_dropout_prob=0.0",
    "model.head.hidden=8",
    "model.head.dropout=0.0",
)
# A rank of a job of two; the launcher sets devices and num_nodes.
ONE_OF_TWO = ("trainer=cpu", "trainer.strategy=ddp")
_LIMIT = 240


def environment(**more: str) -> dict[str, str]:
    """The environment of a new interpreter that imports from this working tree first."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@contextmanager
def servers() -> Iterator[None]:
    """Run the servers, for this process and those that it starts.

    The servers import nothing until the first process is requested.
    """
    with tempfile.TemporaryDirectory(prefix="thaw-tests-") as place:
        started = {}
        for name in ("torch", "tensorflow"):
            command = [
                sys.executable,
                "-m",
                "tests.process_server",
                f"{place}/{name}",
                f"tests.preloaded_{name}",
            ]
            with Path(place, f"{name}.log").open("w") as log:
                started[name] = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                )
        for name, server in started.items():
            assert server.stdout is not None
            if not server.stdout.readline():  # the line means that it listens
                raise RuntimeError(Path(place, f"{name}.log").read_text())
        os.environ[_PLACE] = place
        yield
        for server in started.values():
            server.communicate()  # closes stdin, and the server kills its processes


class Started:
    """A process of a server, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, server: Path, job: Job, outputs: Path) -> None:
        self.returncode: int | None = None
        self._outputs = outputs
        self._connection: Connection = Client(str(server))
        self._connection.send(job)
        try:
            self.pid: int = self._connection.recv()
        except EOFError as error:
            raise RuntimeError(server.with_suffix(".log").read_text()) from error

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        if self.returncode is None and self._connection.poll():
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; returns the exit code, which is negative after a signal."""
        if self.returncode is None:
            if not self._connection.poll(timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = self._connection.recv()
            self._connection.close()
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; returns the contents of stdout and stderr."""
        self.wait(timeout)
        out, err = (
            (self._outputs / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")
        )
        return out, err

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = Started | subprocess.Popen[str]


def start(
    *arguments: object,
    program: Path | str | Callable[..., None] = "train.py",
    cwd: Path = ROOT,
    server: str = "torch",
    env: dict[str, str] | None = None,
    terminal: str | None = None,
    **more: str,
) -> Started:
    """Start a script or a function in a process in which everything is imported already.

    Args:
        arguments: Arguments of the program.
        program: A script, absolute or relative to the root of the repository; the name of a module;
            or a function of a module.
        cwd: The working directory.
        server: `torch` or `tensorflow`.
        env: The whole environment; that of this process if None.
        terminal: A terminal for all streams; if None, they go to files.
        more: Variables added to the environment.
    """
    place = Path(os.environ[_PLACE])
    outputs = Path(tempfile.mkdtemp(dir=place))
    for name in ("stdout", "stderr"):
        (outputs / name).touch()
    streams = (
        (terminal,) * 3
        if terminal
        else (os.devnull, str(outputs / "stdout"), str(outputs / "stderr"))
    )
    given = {**(os.environ if env is None else env), **more}
    target = (
        program
        if callable(program)
        else str(ROOT / program)
        if str(program).endswith(".py")
        else str(program)
    )
    return Started(
        place / server, Job(target, tuple(map(str, arguments)), given, str(cwd), streams), outputs
    )


def start_cold(
    *arguments: str, launcher: tuple[str, ...] = (), cwd: Path = ROOT, **more: str
) -> subprocess.Popen[str]:
    """Start `train.py` in a new interpreter, as a user does, optionally with a launcher.

    The imports take seconds.
    """
    command = [*(launcher or (sys.executable,)), str(ROOT / "train.py"), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=environment(**more), text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def ended(process: Process) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; a process that hangs is killed, and the test fails."""
    try:
        out, err = process.communicate(timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def run(*arguments: object, **rest: Any) -> tuple[int, str, str]:
    """Start a process as `start` does, and wait for its end."""
    return ended(start(*arguments, **rest))


def run_ranks(count: int, *arguments: object, **rest: Any) -> list[tuple[int, str, str]]:
    """Run all ranks of one job to their end; they find each other as under torchrun."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )  # the store has opened its port already
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    ranks = [
        start(*arguments, **rest, **shared, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(count)
    ]
    return [ended(rank) for rank in ranks]


def run_cold(
    *arguments: str, launcher: tuple[str, ...] = (), cwd: Path = ROOT, **more: str
) -> tuple[int, str, str]:
    """Run `train.py` to its end in a new interpreter, as a user does."""
    return ended(start_cold(*arguments, launcher=launcher, cwd=cwd, **more))


def wait_for(condition: Callable[[], bool], process: Process) -> None:
    """Wait until a condition is true, while the process runs."""
    deadline = time.monotonic() + _LIMIT
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_of(folder: Path) -> dict[int, int]:
    """Rank -> process id of running `train.py` processes that have the folder as an argument."""
    found: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command_line = (place / "cmdline").read_text()
            variables = dict(
                pair.split("=", 1)
                for pair in (place / "environ").read_text().split("\0")
                if "=" in pair
            )
        except OSError:
            continue
        if str(folder) in command_line and "train.py" in command_line:
            found[int(variables.get("RANK", "-1"))] = int(place.name)
    return found


def kill(process_id: int, signum: signal.Signals) -> None:
    """Send a signal to one process."""
    os.kill(process_id, signum)


def epochs(folder: Path) -> int:
    """How many epochs a run has finished."""
    return len(RunFolder(folder).read_history())


def sabotage(folder: Path, code: str) -> str:
    """A PYTHONPATH with which every Python process runs some code before anything else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    return f"{folder}{os.pathsep}{ROOT}"
