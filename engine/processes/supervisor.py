"""Supervision of the processes of one job on this machine.

The supervisor starts them with torchrun's environment variables, watches them, and ends them
together.
"""

import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path

from engine.processes.first_failure import error_file, first_failure
from engine.processes.outcome import ERROR_FILE
from engine.processes.ranks import SUPERVISOR, Rank
from engine.processes.signals import InterruptedRunError
from run_folders.files import write_text
from run_folders.run_folder import RunFolder

# Environment variable with the user's value of HYDRA_FULL_ERROR, which is changed while Hydra runs
# a job.
FULL_ERROR = "THAW_FULL_ERROR"
_POLL = 0.1  # seconds
# Seconds for the processes to end by themselves after one has failed. They notice the lost
# connection, and rank 0 finishes its files.
_GRACE = 15.0
_TERMINATED = 10.0  # seconds between SIGTERM and SIGKILL
_INTERRUPTED = 60.0  # seconds between the user's signal and SIGKILL


def end_with_supervisor() -> None:
    """Stop this process when its supervisor has ended; do nothing without a supervisor."""
    if SUPERVISOR not in os.environ:
        return
    supervisor = int(os.environ[SUPERVISOR])

    def look() -> None:
        while os.getppid() == supervisor:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()


class Processes:
    """The processes of one job.

    Attributes:
        children: The started processes, in the order of their ranks.
    """

    def __init__(self, command: list[str], count: int, port: int, folder: RunFolder) -> None:
        """Store what `run` starts.

        Args:
            command: The command line of every process.
            count: The number of processes.
            port: The port of their rendezvous on this machine.
            folder: The run folder.
        """
        self.command, self.count, self.port, self.folder = command, count, port, folder
        self.children: list[subprocess.Popen[bytes]] = []

    def run(self) -> str:
        """Start the processes and wait until all have ended; end the others where one fails.

        Returns:
            The error of the process that failed first; empty where none failed.

        Raises:
            InterruptedRunError: If a signal asked the job to stop. The signal was passed on, and
                the processes have ended.
        """
        with tempfile.TemporaryDirectory(prefix="thaw-") as errors:
            try:
                for rank in range(self.count):
                    self.children.append(self._start(rank, Path(errors)))
                return self._watch(Path(errors))
            except InterruptedRunError as error:
                self._signal(error.signum)
                self._wait(_INTERRUPTED)
                self.folder.write_end_if_missing("interrupted", str(error))
                raise
            finally:
                self._clean_up()

    def _start(self, rank: int, errors: Path) -> subprocess.Popen[bytes]:
        """Start one process; only rank 0 writes to the terminal."""
        ours = {SUPERVISOR: str(os.getpid()), ERROR_FILE: str(error_file(errors, rank))}
        ours["HYDRA_FULL_ERROR"] = os.environ.get(FULL_ERROR, "0")
        environment = {**os.environ, **torchrun_environment(rank, self.count, self.port), **ours}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.count)))
        with self._log(rank).open("ab") if rank else nullcontext() as log:
            # With a session of its own, the child gets no Ctrl-C from the terminal. The supervisor
            # gets it and passes it on once.
            return subprocess.Popen(  # noqa: S603 - this program itself
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if rank else None,
                stderr=log,
                start_new_session=True,
            )

    def _log(self, rank: int) -> Path:
        return self.folder.path / f"rank{rank}.log"

    def _watch(self, errors: Path) -> str:
        """Wait until all processes have ended or one has failed; then end the others.

        Returns:
            The error of the process that failed first; empty if none did.
        """
        clock = errors / "clock"  # a file, so that its time comes from the error files' clock
        clock.touch()
        while not any(codes := [child.poll() for child in self.children]) and None in codes:
            clock.touch()
            time.sleep(_POLL)
        if not any(codes):
            return ""
        last_look = clock.stat().st_mtime  # the others' errors about the lost connection are later
        for rank, code in enumerate(codes):
            file = error_file(errors, rank)
            if code and not file.exists():
                write_text(file, self._end_of(rank, code))
                os.utime(file, (last_look, last_look))
        error = first_failure(errors, self.count)
        self.folder.write_end_if_missing("failed", error)
        if not self._wait(_GRACE):
            self._signal(signal.SIGTERM)
            self._wait(_TERMINATED)
        return error

    def _end_of(self, rank: int, code: int) -> str:
        """Return a message for a process that ended without reporting an error."""
        killed = f"was killed by {signal.Signals(-code).name}" if code < 0 else ""
        log = f"; see {self._log(rank)}" if rank else ""
        return f"rank {rank} {killed or f'ended with exit code {code}'}{log}"

    def _wait(self, seconds: float) -> bool:
        """Wait at most this long; return whether all processes have ended."""
        deadline = time.monotonic() + seconds
        while (
            running := any(child.poll() is None for child in self.children)
        ) and time.monotonic() < deadline:
            time.sleep(_POLL)
        return not running

    def _signal(self, signum: int) -> None:
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signum)

    def _clean_up(self) -> None:
        """Kill the processes that still run, and remove empty log files."""
        self._signal(signal.SIGKILL)
        for rank, child in enumerate(self.children):
            child.wait()
            if rank and self._log(rank).exists() and not self._log(rank).stat().st_size:
                self._log(rank).unlink()


def torchrun_environment(rank: int, count: int, port: int) -> dict[str, str]:
    """Return the environment variables that torchrun would set for a process.

    This process keeps the rendezvous store, as torchrun's agent does.
    """
    agent = {
        "TORCHELASTIC_RUN_ID": "thaw",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    return Rank(rank, count, rank, count, 0, "thaw").as_torchrun("127.0.0.1", port) | agent
