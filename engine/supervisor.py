"""The processes of one job on this machine: started with torchrun's words, watched, and ended together."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from engine.outcome import ERROR_FILE
from engine.peers import own_words
from engine.ranks import SUPERVISOR
from engine.run_folder import RunFolder

# What the user said of HYDRA_FULL_ERROR, which is set while Hydra runs a job.
FULL_ERROR = "THAW_FULL_ERROR"
_POLL = 0.1  # seconds
# The others notice by themselves that one has gone, and rank 0 writes down and closes what it has open.
_GRACE = 15.0
_TERMINATED = 10.0
_INTERRUPTED = 60.0


def end_with_supervisor() -> None:
    """Where another process started this one as one of several, stop when it has gone."""
    if SUPERVISOR not in os.environ:
        return
    supervisor = int(os.environ[SUPERVISOR])

    def look() -> None:
        while os.getppid() == supervisor:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()


def end_unsaid(folder: RunFolder, state: str, error: str) -> None:
    """Write how a run ended, unless one of its processes has."""
    status = folder.read_json("status.json")
    if status.get("state") == "running":
        folder.write_status(state, status["stage"], error)


class Processes:
    """The processes of one job.

    Attributes:
        failed: The rank that failed first.
    """

    def __init__(self, command: list[str], count: int, port: int, folder: RunFolder) -> None:
        self.folder = folder
        self.failed: int | None = None
        self.logs: list[IO[bytes]] = []
        self.errors = tempfile.TemporaryDirectory(prefix="thaw-")
        self.children: list[subprocess.Popen[bytes]] = []
        self._given = command, count, port

    def _start(self, command: list[str], rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
        """Start one; only rank 0 speaks to the terminal."""
        ours = {SUPERVISOR: str(os.getpid()), ERROR_FILE: str(self._error_file(rank))}
        ours["HYDRA_FULL_ERROR"] = os.environ.get(FULL_ERROR, "0")
        environment = {**os.environ, **torchrun_protocol(rank, count, port), **ours}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        log: IO[bytes] | None = None
        if rank:
            log = self._log(rank).open("ab")
            self.logs.append(log)
        # Its own session: Ctrl-C reaches this process alone, which passes it on once.
        return subprocess.Popen(  # noqa: S603 - this program itself
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if rank else None,
            stderr=log,
            start_new_session=True,
        )

    def _error_file(self, rank: int) -> Path:
        return Path(self.errors.name) / f"rank{rank}"

    def _log(self, rank: int) -> Path:
        return self.folder.path / f"rank{rank}.log"

    def __enter__(self) -> Self:
        try:
            command, count, port = self._given
            for rank in range(count):
                self.children.append(self._start(command, rank, count, port))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Whatever happened, leave no process behind, and no log in which nothing stands."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
        for log in self.logs:
            log.close()
        for rank in range(1, len(self.children)):
            if self._log(rank).exists() and not self._log(rank).stat().st_size:
                self._log(rank).unlink()

    def watch(self) -> None:
        """Wait until all have ended; where one fails, end the others."""
        while self._running() and not any(child.poll() for child in self.children):
            time.sleep(_POLL)
        self.failed = next((rank for rank, child in enumerate(self.children) if child.poll()), None)
        if self.failed is None:
            return
        end_unsaid(self.folder, "failed", self.words(self.failed))
        if not self._wait(_GRACE):
            self._signal(signal.SIGTERM)
            self._wait(_TERMINATED)

    def interrupt(self, signum: int) -> None:
        """Pass a signal on, and let rank 0 write down where the run stands."""
        self._signal(signum)
        self._wait(_INTERRUPTED)

    def words(self, rank: int) -> str:
        """How a process failed: in its own words, or in ours where it could not say."""
        if self._error_file(rank).exists():
            return own_words(self._error_file(rank).read_text(encoding="utf-8"), rank)
        code = self.children[rank].returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"rank {rank} {how}" + (f"; see {self._log(rank)}" if rank else "")

    def _running(self) -> bool:
        return any(child.poll() is None for child in self.children)

    def _wait(self, seconds: float) -> bool:
        """Whether all have ended within this time."""
        deadline = time.monotonic() + seconds
        while self._running() and time.monotonic() < deadline:
            time.sleep(_POLL)
        return not self._running()

    def _signal(self, signum: int) -> None:
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signum)


def torchrun_protocol(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun would tell a process; the place where they meet is kept by this process, as torchrun's agent does."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
    agent = {"TORCHELASTIC_RUN_ID": "thaw", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    return {
        **{key: str(value) for key, value in numbers.items()},
        **agent,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
