"""How Lightning is told of the processes and devices that train together."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy
from omegaconf import DictConfig, open_dict

from engine.config.validation import ConfigError
from engine.processes.ranks import Rank, new_rendezvous, this_rank
from lightning_modules.base import Task

# Longer than any process keeps the others waiting: for rank 0's checkpoints and for the slowest
# share of a validation.
_PATIENCE = timedelta(minutes=10)
_FIRST_PORT, _PORTS = 15000, 10000  # of SLURM jobs
_STRATEGIES = (
    "auto",
    "ddp",
    "ddp_find_unused_parameters_false",
    "ddp_find_unused_parameters_true",
    "fsdp",
)


def slurm_rendezvous(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Host and port at which the processes of a step of a SLURM job find each other; each step has its own."""
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", "127.0.0.1"))
    host = environment.get("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    port = (
        _FIRST_PORT
        + (int(environment.get("SLURM_JOB_ID", "0")) + int(environment.get("SLURM_STEP_ID", "0")))
        % _PORTS
    )
    return host, int(environment.get("MASTER_PORT", port))


def _cluster_environment(rank: Rank | None) -> ClusterEnvironment:
    """Tell Lightning which process this is: whoever started it, in torchrun's variables.

    Lightning's class for SLURM refuses `srun --ntasks=2` without a count per node and has all steps
    of a job meet at one port.
    """
    if rank is None:
        return LightningEnvironment()
    if rank.launcher == "srun":
        os.environ.update(rank.as_torchrun(*slurm_rendezvous()))
    new_rendezvous()
    return TorchElasticEnvironment()


def set_devices_from_launcher(cfg: DictConfig) -> None:
    """State in the config how many devices and machines torchrun or srun started processes for: theirs are what there is."""
    rank = this_rank()
    if rank is not None and rank.launcher != "thaw":
        with open_dict(cfg):
            cfg.trainer.devices, cfg.trainer.num_nodes = (
                rank.local_world,
                rank.world // rank.local_world,
            )


def placement(cfg: DictConfig) -> dict[str, Any]:
    """What of the trainer's arguments says where it computes, and with whom.

    Args:
        cfg: The config.

    Returns:
        `strategy` and the plugin that says which process this is.

    Raises:
        ConfigError: If the processes that are asked for cannot be started from here, or the devices
            are not there.
    """
    rank, nodes = this_rank(), cfg.trainer.get("num_nodes", 1)
    if rank is None and nodes != 1:
        msg = (
            f"trainer.num_nodes: received {nodes}; train.py starts the processes of one machine. Start it on each machine with "
            f"torchrun --nnodes={nodes} ..., or by srun on a SLURM cluster, which say how many there are"
        )
        raise ConfigError(msg)
    accelerator = cfg.trainer.get("accelerator")
    if accelerator in ("gpu", "cuda") and not (
        torch.cuda.is_available() or torch.backends.mps.is_available()
    ):
        msg = f"trainer.accelerator: received {accelerator!r}, and this machine has none; take trainer=cpu"
        raise ConfigError(msg)
    name = cfg.trainer.get("strategy", "auto")
    strategy = (
        _strategy(name, several=rank is not None and rank.world > 1)
        if isinstance(name, str)
        else name
    )
    return {"strategy": strategy, "plugin": _cluster_environment(rank)}


def _strategy(name: str, *, several: bool) -> str | Strategy:
    if name not in _STRATEGIES:
        msg = f"trainer.strategy: received {name!r}; choose one of {', '.join(_STRATEGIES)}"
        raise ConfigError(msg)
    if name == "fsdp":
        return FSDPStrategy(timeout=_PATIENCE, state_dict_type="full")
    if name == "auto" and not several:
        return "auto"
    return DDPStrategy(timeout=_PATIENCE, find_unused_parameters=name.endswith("true"))


def check_processes(cfg: DictConfig, trainer: lightning.Trainer, task: Task) -> None:
    """Hold the number of processes and the strategy against data and task.

    Raises:
        ConfigError: If they do not fit.
    """
    batch_size = cfg.data.get("batch_size")
    if isinstance(batch_size, int) and batch_size < trainer.world_size:
        msg = f"data.batch_size: received {batch_size}; the {trainer.world_size} processes share a batch: give each one sample"
        raise ConfigError(msg)
    if isinstance(trainer.strategy, FSDPStrategy) and len(task.freezing.stages) > 1:
        msg = "trainer.strategy=fsdp shards what trains from the start on; a schedule of unfreezing needs trainer.strategy=ddp"
        raise ConfigError(msg)


@contextmanager
def unused_parameters_named(task: Task) -> Iterator[None]:
    """Say in one line that DDP waited for gradients that do not come.

    Args:
        task: What is trained.

    Raises:
        ConfigError: Instead of DDP's message.
    """
    try:
        yield
    except RuntimeError as error:
        if "not used in producing the loss" not in str(
            error
        ):  # Lightning's message for DDP's error
            raise
        without = [
            name
            for name, p in task.network.named_parameters()
            if p.requires_grad and p.grad is None
        ]
        example = f" ({without[0]} for one)" if without else ""
        msg = f"the loss does not reach every parameter{example}; set trainer.strategy=ddp_find_unused_parameters_true"
        raise ConfigError(msg) from error


def barrier() -> None:
    """Wait for the other processes, where there are any."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
