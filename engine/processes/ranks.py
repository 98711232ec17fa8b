"""The rank of this process, read from the environment variables of its launcher.

Third-party packages are imported inside functions, so that importing this module is fast.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from run_folders.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

# Environment variable with the process id of the supervisor; see engine/processes/supervisor.py.
SUPERVISOR = "THAW_SUPERVISOR"
_STAMP = "%Y-%m-%d_%H-%M-%S"
_INTERACTIVE = ("bash", "interactive")  # job names of interactive SLURM allocations
_RESTART_COUNT = "TORCHELASTIC_RESTART_COUNT"  # set by torchrun


class LaunchError(UserError, ValueError):
    """The launcher started the processes in a way that is not supported."""


@dataclass(frozen=True)
class Rank:
    """One of the processes that train together.

    Attributes:
        number: The global rank, 0 to world - 1.
        world: The number of processes on all machines.
        local: The local rank, 0 to local_world - 1.
        local_world: The number of processes on each machine.
        node: The index of the machine, from 0.
        launcher: The program that started the processes; `thaw` is `train.py` itself.
    """

    number: int
    world: int
    local: int
    local_world: int
    node: int
    launcher: Literal["thaw", "torchrun", "srun"]

    def as_torchrun(self, host: str, port: int) -> dict[str, str]:
        """Return the environment variables that torchrun would set for this process.

        Args:
            host: The host of the rendezvous.
            port: The port of the rendezvous.
        """
        global_variables = {
            "RANK": self.number,
            "WORLD_SIZE": self.world,
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
        }
        local_variables = {
            "LOCAL_RANK": self.local,
            "LOCAL_WORLD_SIZE": self.local_world,
            "GROUP_RANK": self.node,
        }
        return {name: str(value) for name, value in {**global_variables, **local_variables}.items()}


def this_rank(environment: Mapping[str, str] = os.environ) -> Rank | None:
    """Return this process's rank; None where it was started as a single process.

    Raises:
        LaunchError: If srun started different numbers of tasks on the nodes.
    """
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= environment.keys():
        number, world, local = (
            int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        )
        local_world = int(environment.get("LOCAL_WORLD_SIZE", world))
        launcher: Literal["thaw", "torchrun"] = "thaw" if SUPERVISOR in environment else "torchrun"
        return Rank(
            number, world, local, local_world, int(environment.get("GROUP_RANK", 0)), launcher
        )
    # sbatch sets its variables for the batch script too. Only srun starts tasks and sets those of
    # the step.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks == 1:
        return None
    number, local, node = (
        int(environment.get(f"SLURM_{name}", "0")) for name in ("PROCID", "LOCALID", "NODEID")
    )
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1")))
    if tasks % nodes:
        msg = (
            f"srun started {tasks} tasks on {nodes} nodes; "
            "each node needs the same number of tasks: set --ntasks-per-node"
        )
        raise LaunchError(msg)
    return Rank(number, tasks, local, tasks // nodes, node, "srun")


def check_can_sweep() -> None:
    """Check that torchrun did not start this process: each of its processes would run the sweep.

    Raises:
        LaunchError: If torchrun started this process.
    """
    rank = this_rank()
    if rank is not None and rank.launcher == "torchrun":
        msg = (
            "torchrun cannot run a sweep; start train.py -m without torchrun, "
            "with trainer.devices=N for N processes per job"
        )
        raise LaunchError(msg)


def launched_devices() -> tuple[int, int] | None:
    """Return devices of a node and number of nodes, if torchrun or srun started the processes."""
    rank = this_rank()
    if rank is None or rank.launcher == "thaw":
        return None
    return rank.local_world, rank.world // rank.local_world


def is_child() -> bool:
    """Return whether a supervisor of Thaw started this process; it then manages the run folder."""
    return SUPERVISOR in os.environ


def is_rank_zero() -> bool:
    """Return whether this process writes the run folder: it is rank 0, or the only process."""
    rank = this_rank()
    return rank is None or rank.number == 0


def add_rank(message: str) -> str:
    """Return an error message, prefixed with this process's rank unless it is rank 0."""
    rank = this_rank()
    return message if rank is None or rank.number == 0 else f"rank {rank.number}: {message}"


def log_name(name: str) -> str:
    """Return the name of this process's log file; rank 0 and a single process write `NAME.log`."""
    rank = this_rank()
    return f"{name}.log" if rank is None or rank.number == 0 else f"rank{rank.number}.log"


def was_restarted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether torchrun or SLURM restarted this job after it had been stopped."""
    return any(
        int(environment.get(name, "0") or 0) > 0 for name in (_RESTART_COUNT, "SLURM_RESTART_COUNT")
    )


def stamp() -> str:
    """Return the unique part of a run folder's name, equal in all processes of a job.

    It is the SLURM job's id, the time that torchrun's processes share, or the current time. A
    requeued SLURM job finds its run folder by the job's id.

    Raises:
        LaunchError: If torchrun's processes cannot agree on a stamp.
    """
    return fixed_stamp() or agreed("stamp", lambda: time.strftime(_STAMP))


def fixed_stamp() -> str | None:
    """Return the stamp that an id of the launcher sets; None where it is a time.

    Processes that are requeued or have no shared store find their folder by it.
    """
    return _slurm_stamp(os.environ) or _torchrun_id()


def _slurm_stamp(environment: Mapping[str, str]) -> str | None:
    """Return job id and step id; None outside of srun.

    None also for a single process in an interactive allocation: it may start several runs there.
    """
    job, step = environment.get("SLURM_JOB_ID"), environment.get("SLURM_STEP_ID")
    alone = int(environment.get("SLURM_STEP_NUM_TASKS", "1")) == 1
    if job is None or step is None or (alone and environment.get("SLURM_JOB_NAME") in _INTERACTIVE):
        return None
    if "SLURM_ARRAY_JOB_ID" in environment:
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment.get('SLURM_ARRAY_TASK_ID', '0')}"
    return f"slurm_{job}" if step == "0" else f"slurm_{job}_step{step}"


def _torchrun_id() -> str | None:
    """Return torchrun's rendezvous id where its agents keep no store for its processes."""
    rank = this_rank()
    if rank is None or rank.launcher != "torchrun" or rank.world == 1 or _agents_keep_store():
        return None
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if run_id == "none":
        msg = (
            "torchrun's agents have no shared store, so the processes cannot agree on a run "
            "folder; set hydra.run.dir=RUN"
        )
        raise LaunchError(msg)
    return f"torchrun_{run_id}"


def agreed(name: str, choose: Callable[[], str]) -> str:
    """Return what rank 0 chooses; the store of torchrun's agents shares it with the other ranks.

    Ranks that were restarted keep the first choice. A process that torchrun did not start chooses
    by itself.
    """
    rank = this_rank()
    if rank is None or rank.launcher != "torchrun" or rank.world == 1:
        return choose()
    store, key = _agents_store(), f"thaw/{name}"
    if rank.number == 0 and not store.check([key]):
        store.set(key, choose())
    return store.get(key).decode()


@cache
def new_rendezvous() -> "TCPStore | None":
    """Set up a new rendezvous store for processes that torchrun has restarted.

    The agents keep one store for all attempts. In it, gloo would find the addresses of processes
    that have ended, and fail to connect to them.

    Returns:
        In rank 0 the store, cached so that it exists as long as the process. None in other ranks,
        and where no new store is needed.
    """
    rank, attempt = this_rank(), int(os.environ.get(_RESTART_COUNT, "0") or 0)
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
    """Return the store that torchrun's agents keep for their processes."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # takes seconds; only here

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
