"""Launching of several processes on this machine for one job.

The launching process does not train. It starts `train.py` once per device, with the job's own
overrides and run folder, so that no process parses the sweep's overrides again. Its own environment
does not change, and a job that crashes does not end the sweep.
"""

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf

from engine.command_line.commands import process_command
from engine.processes.outcome import describe
from engine.processes.ranks import is_rank_zero, this_rank, was_restarted
from engine.processes.supervisor import Processes
from run_folders.errors import UserError
from run_folders.run_folder import RunFolder

_ALL = -1  # Lightning's number for all devices


class ProcessesError(UserError, RuntimeError):
    """One of the job's processes failed; the run folder has the same message."""


def begin(folder: RunFolder, ckpt_path: str | None) -> str | None:
    """Mark the run folder as running; resume a job that torchrun or SLURM restarted.

    Args:
        folder: The run folder.
        ckpt_path: The checkpoint to start from.

    Returns:
        The checkpoint to start from: `last` for a restarted job that has it, else `ckpt_path`.

    Raises:
        RunFolderError: If the folder contains another run.
    """
    _silence_all_but_the_first()
    rank = this_rank()
    if rank is not None and rank.launcher == "thaw":
        return ckpt_path  # the supervisor has marked the folder
    if was_restarted() and folder.is_unfinished:
        folder.write_status("running", "setup")
        return "last" if folder.last_checkpoint.exists() else ckpt_path
    if folder.writes:
        folder.begin(ckpt_path)
    return ckpt_path


def _silence_all_but_the_first() -> None:
    """Turn off logging to the terminal in all ranks but 0; they still log to their files."""
    if not is_rank_zero():
        for handler in logging.getLogger().handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL + 1)


def needs_launch(cfg: DictConfig) -> bool:
    """Return whether the job needs several processes that have not been started yet."""
    return this_rank() is None and not cfg.get("plan") and process_count(cfg) > 1


def process_count(cfg: DictConfig) -> int:
    """Return the number of processes on this machine that the config requests.

    It is 1 where the requested devices do not exist: the trainer then reports the error.
    """
    trainer: Any = cfg.get("trainer") or {}
    if trainer.get("num_nodes", 1) != 1:
        return 1
    count, accelerator = _device_count(trainer.get("devices")), trainer.get("accelerator")
    if count in (0, 1):
        return 1
    if accelerator == "cpu":
        return max(1, count)
    import torch  # takes seconds, and one device needs none

    gpus = torch.cuda.device_count()
    if accelerator == "auto" and not gpus:
        return max(1, count)
    if count == _ALL:
        return max(1, gpus)
    return count if 0 < count <= gpus else 1


def _device_count(devices: Any) -> int:  # noqa: ANN401 - any value of a config
    """Return the number of devices in `trainer.devices`; `_ALL` for all of them."""
    if isinstance(devices, str) and "," in devices:
        devices = devices.split(",")
    if isinstance(devices, list) or OmegaConf.is_list(devices):
        return sum(device != "" for device in devices)
    if devices == "auto":
        return _ALL
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        return int(devices)
    return devices if isinstance(devices, int) else 1


def run_in_processes(cfg: DictConfig, folder: RunFolder, ckpt_path: str | None) -> float | None:
    """Run a job in one process per device.

    Args:
        cfg: The composed config.
        folder: The job's run folder.
        ckpt_path: The checkpoint to start from.

    Returns:
        The best value of the monitored metric, for sweeps; None where nothing was trained.

    Raises:
        ProcessesError: If one of the processes failed.
        InterruptedRunError: If a signal asked the job to stop. The signal was passed on, and the
            processes have ended.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    before = folder.read_json("status.json")
    try:
        # The store of the processes' rendezvous. Port 0 binds a free port at once. A free port that
        # is only looked up could be taken before it is used.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        command = process_command(folder.path, ckpt_path)
        failed = Processes(command, process_count(cfg), store.port, folder).run()
    except Exception as error:
        folder.write_end_if_missing("failed", describe(error))
        raise
    if failed:
        status = folder.read_json("status.json")
        recorded = status["error"] if status != before else ""
        raise ProcessesError.from_text(recorded or failed)
    score: float | None = folder.read_json("metrics.json").get("best", {}).get("score")
    return score
