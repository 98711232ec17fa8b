"""Which of several processes this one is, as whoever started it says in the environment. Standard library at the top."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from run_folders.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

# Process id of the process that started this one as one of several; see
# engine/processes/supervisor.py.
SUPERVISOR = "THAW_SUPERVISOR"
_STAMP = "%Y-%m-%d_%H-%M-%S"
_INTERACTIVE = ("bash", "interactive")
_TORCHRUNS_COUNT = "TORCHELASTIC_RESTART_COUNT"


class LaunchError(UserError, ValueError):
    """The processes were not started in a way that they can work together."""


@dataclass(frozen=True)
class Rank:
    """One of the processes that train together.

    Attributes:
        number: 0..world-1, over all machines.
        world: How many there are.
        local: 0.., on this machine.
        local_world: How many there are on each machine.
        node: 0.., of the machine.
        launcher: Who started them: `train.py` itself, `torchrun`, or `srun`.
    """

    number: int
    world: int
    local: int
    local_world: int
    node: int
    launcher: Literal["thaw", "torchrun", "srun"]

    def as_torchrun(self, host: str, port: int) -> dict[str, str]:
        """What torchrun would say in the environment of this process, with the place where the processes meet."""
        over_all = {
            "RANK": self.number,
            "WORLD_SIZE": self.world,
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
        }
        on_machine = {
            "LOCAL_RANK": self.local,
            "LOCAL_WORLD_SIZE": self.local_world,
            "GROUP_RANK": self.node,
        }
        return {name: str(value) for name, value in {**over_all, **on_machine}.items()}


def this_rank(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """This process's rank; None where it was started by itself."""
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environment.keys():
        number, world, local = (
            int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        )
        local_world = int(environment.get("LOCAL_WORLD_SIZE", world))
        launcher: Literal["thaw", "torchrun"] = "thaw" if SUPERVISOR in environment else "torchrun"
        return Rank(
            number, world, local, local_world, int(environment.get("GROUP_RANK", 0)), launcher
        )
    # What sbatch sets holds for the script itself too; only srun starts the tasks.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks == 1:
        return None
    number, local, node = (
        int(environment.get(f"SLURM_{name}", "0")) for name in ("PROCID", "LOCALID", "NODEID")
    )
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1")))
    if tasks % nodes:
        msg = f"srun started {tasks} tasks on {nodes} nodes; as many are needed on each: set --ntasks-per-node"
        raise LaunchError(msg)
    return Rank(number, tasks, local, tasks // nodes, node, "srun")


def check_can_sweep() -> None:
    """Raise `LaunchError` where torchrun started this process: each of its processes would sweep by itself."""
    rank = this_rank()
    if rank is not None and rank.launcher == "torchrun":
        msg = "torchrun cannot sweep; start train.py -m by itself with trainer.devices=N, which gives each job its processes"
        raise LaunchError(msg)


def is_child() -> bool:
    """Whether another process of Thaw started this one as one of several, and keeps the run folder for them."""
    return SUPERVISOR in os.environ


def is_first() -> bool:
    """Whether this process is the one that writes the run folder: rank 0, or the only one."""
    rank = this_rank()
    return rank is None or rank.number == 0


def with_rank(message: str) -> str:
    """An error, with the rank that it belongs to where that is not rank 0."""
    rank = this_rank()
    return message if rank is None or rank.number == 0 else f"rank {rank.number}: {message}"


def log_name(name: str) -> str:
    """Name of this process's log file: rank 0 writes the run's."""
    rank = this_rank()
    return f"{name}.log" if rank is None or rank.number == 0 else f"rank{rank.number}.log"


def was_restarted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or SLURM started this job again after it had been stopped."""
    return any(
        int(environment.get(name, "0") or 0) > 0
        for name in (_TORCHRUNS_COUNT, "SLURM_RESTART_COUNT")
    )


def stamp() -> str:
    """What tells one run folder from another: the time, or what all processes of a job know it by.

    A job of SLURM that is started again finds its folder by it.

    Raises:
        LaunchError: If the processes cannot agree.
    """
    return _slurm_stamp(os.environ) or _torchrun_stamp() or time.strftime(_STAMP)


def _slurm_stamp(environment: Mapping[str, str]) -> str | None:
    """Job and step; None outside of srun, and in an interactive allocation for a single process, which is started often."""
    job, step = environment.get("SLURM_JOB_ID"), environment.get("SLURM_STEP_ID")
    alone = int(environment.get("SLURM_STEP_NUM_TASKS", "1")) == 1
    if job is None or step is None or (alone and environment.get("SLURM_JOB_NAME") in _INTERACTIVE):
        return None
    if "SLURM_ARRAY_JOB_ID" in environment:
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment.get('SLURM_ARRAY_TASK_ID', '0')}"
    return f"slurm_{job}" if step == "0" else f"slurm_{job}_step{step}"


def _torchrun_stamp() -> str | None:
    """The time at which the first process asked, which the agents of torchrun keep for the others."""
    rank = this_rank()
    if rank is None or rank.launcher != "torchrun" or rank.world == 1:
        return None
    if not _agents_keep_store():
        run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
        if run_id == "none":
            msg = "torchrun's agents share no store, so the processes cannot agree on a run folder; give hydra.run.dir=RUN"
            raise LaunchError(msg)
        return f"torchrun_{run_id}"
    return str(_agents_store().compare_set("thaw/stamp", "", time.strftime(_STAMP)).decode())


@cache
def new_rendezvous() -> "TCPStore | None":
    """Have processes that torchrun started again meet elsewhere than those before them did.

    The agents keep one store over all attempts, in which gloo finds the addresses of processes that
    have ended and fails to reach them.

    Returns:
        In rank 0 what the others meet in, which is kept as long as the process lives.
    """
    rank, attempt = this_rank(), int(os.environ.get(_TORCHRUNS_COUNT, "0") or 0)
    if rank is None or rank.launcher != "torchrun" or attempt == 0 or not _agents_keep_store():
        return None
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # takes seconds; only here

    agents, key, own = _agents_store(), f"thaw/port/{attempt}", None
    if rank.number == 0:
        own = TCPStore(
            os.environ["MASTER_ADDR"], 0, is_master=True, wait_for_workers=False, multi_tenant=True
        )
        agents.set(key, str(own.port))
    os.environ["MASTER_PORT"] = agents.get(key).decode()
    return own


def _agents_keep_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _agents_store() -> "TCPStore":
    """The store that the agents of torchrun keep for their processes."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # takes seconds; only here

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
