"""Several processes on this machine for one job: started, watched and ended as one.

The process that was asked for the job trains nothing itself. It starts `train.py` once for each device, with the job's own
words and the folder that the job has, so that a sweep's words are never read again. Its environment stays as it was, and a job
that dies takes no sweep with it.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from engine.interrupts import InterruptedRunError
from engine.outcome import ERROR_FILE, describe
from engine.peers import own_words
from engine.ranks import SUPERVISOR, LaunchError, is_first, this_rank, was_restarted
from engine.run_folder import RunFolder

_ROOT = Path(__file__).resolve().parent.parent
_POLL = 0.1  # seconds
# The others notice by themselves that one has gone, and rank 0 writes down and closes what it has open.
_GRACE = 15.0
_TERMINATED = 10.0
_INTERRUPTED = 60.0


class ProcessesError(RuntimeError):
    """One of the processes failed, and with it the job; the run folder has the same words."""

    is_for_the_user = True


def begin(cfg: DictConfig, folder: RunFolder) -> None:
    """Mark the run folder as running; a job that torchrun or SLURM started again goes on where it was.

    Args:
        cfg: The config; `ckpt_path` becomes last where there is such a checkpoint.
        folder: The run folder.

    Raises:
        RunFolderError: If it holds another run.
        LaunchError: If torchrun was asked for a sweep.
    """
    _silence_all_but_the_first()
    rank = this_rank()
    if rank is not None and rank.launcher == "thaw":
        return  # whoever started this process has done so
    if rank is not None and rank.launcher == "torchrun" and HydraConfig.get().mode is RunMode.MULTIRUN:
        msg = "torchrun cannot sweep; start train.py -m by itself with trainer.devices=N, which gives each job its processes"
        raise LaunchError(msg)
    if was_restarted() and folder.is_unfinished:
        if folder.last_checkpoint.exists():
            cfg.ckpt_path = "last"
        folder.write_status("running", "setup")
    elif folder.writes:
        folder.begin(cfg.ckpt_path)


def _silence_all_but_the_first() -> None:
    """Leave the terminal to rank 0; what the others log goes to their files."""
    if not is_first():
        for handler in logging.getLogger().handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL + 1)


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


def needed(cfg: DictConfig) -> bool:
    """Whether a job is to be run by several processes that are yet to be started."""
    return this_rank() is None and not cfg.get("plan") and process_count(cfg) > 1


def process_count(cfg: DictConfig) -> int:
    """How many processes on this machine the config asks for.

    1 where it asks for what is not there: the trainer then says so.
    """
    trainer: Any = cfg.get("trainer") or {}
    devices, accelerator = trainer.get("devices"), trainer.get("accelerator")
    if trainer.get("num_nodes", 1) != 1:
        return 1
    listed = OmegaConf.is_list(devices) or (isinstance(devices, str) and "," in devices)
    wanted = len([d for d in (devices.split(",") if isinstance(devices, str) else devices) if d != ""]) if listed else devices
    if isinstance(wanted, str) and wanted.lstrip("-").isdigit():
        wanted = int(wanted)
    if wanted in (0, 1, None) or (accelerator == "cpu" and not isinstance(wanted, int)):
        return 1
    import torch  # takes seconds, and one device needs none

    gpus = 0 if accelerator == "cpu" else torch.cuda.device_count()
    if accelerator == "cpu" or (accelerator == "auto" and not gpus):
        return max(1, wanted) if isinstance(wanted, int) else 1
    if wanted in ("auto", -1):
        return max(1, gpus)
    return wanted if isinstance(wanted, int) and wanted <= gpus else 1


def run_in_processes(cfg: DictConfig, folder: RunFolder) -> float | None:
    """Run a job in a process for each device.

    Args:
        cfg: The composed config.
        folder: The job's run folder.

    Returns:
        The best value of the monitored figure, for sweeps; None where nothing was trained.

    Raises:
        ProcessesError: If one of them failed.
        InterruptedRunError: If a signal asked the job to stop; the processes have been told, and have ended.
    """
    before = folder.read_json("status.json")
    try:
        failed = _run(cfg, folder)
    except Exception as error:
        _end(folder, "failed", describe(error))
        raise
    if failed:
        status = folder.read_json("status.json")
        raise ProcessesError(status["error"] if status != before and status["error"] else failed)
    score: float | None = folder.read_json("metrics.json").get("best", {}).get("score")
    return score


def _run(cfg: DictConfig, folder: RunFolder) -> str:
    """Start the processes and wait for them; returns the error of the one that failed first, empty where none did."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # Here the processes meet. Its port is free because it is open already, which no number that was looked up before is.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with _Processes(_command(cfg, folder), process_count(cfg), store.port, folder) as processes:
        try:
            processes.watch()
        except InterruptedRunError as error:
            processes.interrupt(error.signum)
            _end(folder, "interrupted", str(error))
            raise
        return "" if processes.failed is None else processes.words(processes.failed)


def _end(folder: RunFolder, state: str, error: str) -> None:
    """Write how a run ended, unless one of its processes has."""
    status = folder.read_json("status.json")
    if status.get("state") == "running":
        folder.write_status(state, status["stage"], error)


def _command(cfg: DictConfig, folder: RunFolder) -> list[str]:
    """The words of one job: those that were typed or that the sweep chose, and the folder that it has already."""
    from engine.recording import overrides  # imports torch

    hydra_cfg = HydraConfig.get()
    words = [word for word in overrides() if not word.startswith("ckpt_path=")]
    places = ["hydra.mode=RUN", f"hydra.run.dir={_quoted(folder.path)}", "hydra.output_subdir=null"]
    if hydra_cfg.mode is RunMode.MULTIRUN:  # what the config may refer to
        places.append(f"hydra.sweep.dir={_quoted(Path(hydra_cfg.sweep.dir).resolve())}")
        job = hydra_cfg.job
        places += [f"hydra.job.{key}={getattr(job, key)}" for key in ("num", "id") if not OmegaConf.is_missing(job, key)]
    checkpoint = [] if cfg.ckpt_path is None else [f"ckpt_path={_quoted(cfg.ckpt_path)}"]
    return [sys.executable, str(_ROOT / "train.py"), *words, *checkpoint, *places]


def _quoted(value: object) -> str:
    r"""A value that Hydra's grammar takes as it is; a backslash escapes only quotes there, and itself only before one."""
    return "'" + str(value).replace("'", r"\'") + "'"


class _Processes:
    """The processes of one job.

    Attributes:
        failed: The rank that failed first.
    """

    def __init__(self, command: list[str], count: int, port: int, folder: RunFolder) -> None:
        self.folder = folder
        self.failed: int | None = None
        self.logs: list[IO[bytes]] = []
        self.errors = tempfile.TemporaryDirectory(prefix="thaw-")
        self.children = [self._start(command, rank, count, port) for rank in range(count)]

    def _start(self, command: list[str], rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
        """Start one; only rank 0 speaks to the terminal."""
        ours = {SUPERVISOR: str(os.getpid()), ERROR_FILE: str(self._error_file(rank))}
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
        _end(self.folder, "failed", self.words(self.failed))
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
