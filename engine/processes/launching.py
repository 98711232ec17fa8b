"""Several processes on this machine for one job: started, watched and ended as one.

The process that was asked for the job trains nothing itself. It starts `train.py` once for each
device, with the job's own overrides and its folder, so that a sweep's overrides are never read
again. Its environment stays as it was, and a job that dies takes no sweep with it.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from engine.config.composing import typed_overrides
from engine.processes.outcome import describe
from engine.processes.ranks import is_first, this_rank, was_restarted
from engine.processes.supervisor import Processes
from run_folders.errors import UserError
from run_folders.run_folder import RunFolder

_ROOT = Path(__file__).resolve().parents[2]


class ProcessesError(UserError, RuntimeError):
    """One of the processes failed, and with it the job; the run folder has the same message."""


def begin(cfg: DictConfig, folder: RunFolder) -> None:
    """Mark the run folder as running; a job that torchrun or SLURM started again goes on where it was.

    Args:
        cfg: The config; `ckpt_path` becomes last where there is such a checkpoint.
        folder: The run folder.

    Raises:
        RunFolderError: If it holds another run.
    """
    _silence_all_but_the_first()
    rank = this_rank()
    if rank is not None and rank.launcher == "thaw":
        return  # whoever started this process has done so
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
    wanted = (
        len([d for d in (devices.split(",") if isinstance(devices, str) else devices) if d != ""])
        if listed
        else devices
    )
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
        The best value of the monitored metric, for sweeps; None where nothing was trained.

    Raises:
        ProcessesError: If one of them failed.
        InterruptedRunError: If a signal asked the job to stop; the processes have been told, and
            have ended.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    before = folder.read_json("status.json")
    try:
        # Here the processes meet. Its port is free because it is open already, which no number that
        # was looked up before is.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        failed = Processes(_command(cfg, folder), process_count(cfg), store.port, folder).run()
    except Exception as error:
        folder.write_end_if_missing("failed", describe(error))
        raise
    if failed:
        status = folder.read_json("status.json")
        raise ProcessesError(status["error"] if status != before and status["error"] else failed)
    score: float | None = folder.read_json("metrics.json").get("best", {}).get("score")
    return score


def _command(cfg: DictConfig, folder: RunFolder) -> list[str]:
    """The command of one job: the overrides that were typed or that the sweep chose, and the job's folder."""
    hydra_cfg = HydraConfig.get()
    overrides = [
        override for override in typed_overrides() if not override.startswith("ckpt_path=")
    ]
    places = ["hydra.mode=RUN", f"hydra.run.dir={_quoted(folder.path)}", "hydra.output_subdir=null"]
    if hydra_cfg.mode is RunMode.MULTIRUN:  # what the config may refer to
        places.append(f"hydra.sweep.dir={_quoted(Path(hydra_cfg.sweep.dir).resolve())}")
        job = hydra_cfg.job
        places += [
            f"hydra.job.{key}={_quoted(getattr(job, key))}"
            for key in ("num", "id")
            if not OmegaConf.is_missing(job, key)
        ]
    checkpoint = [] if cfg.ckpt_path is None else [f"ckpt_path={_quoted(cfg.ckpt_path)}"]
    return [sys.executable, str(_ROOT / "train.py"), *overrides, *checkpoint, *places]


def _quoted(value: object) -> str:
    r"""A value that Hydra's grammar takes as it is; a backslash escapes only quotes there, and itself only before one."""
    return "'" + str(value).replace("'", r"\'") + "'"
