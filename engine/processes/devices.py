"""Lightning's strategy and cluster environment for the processes that train together."""

import logging
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
from omegaconf import DictConfig
from torch import nn

from engine.config.errors import ConfigError
from engine.config.instantiating import build_object
from engine.processes.ranks import Rank, is_rank_zero, new_rendezvous, this_rank
from lightning_modules.base import Task

log = logging.getLogger(__name__)

# Timeout of collectives. It exceeds the longest wait: for rank 0 to write a checkpoint, or for the
# slowest rank of a validation.
_COLLECTIVE_TIMEOUT = timedelta(minutes=10)
_FIRST_PORT, _PORTS = 15000, 10000  # ports of SLURM jobs
_STRATEGIES = (
    "auto",
    "ddp",
    "ddp_find_unused_parameters_false",
    "ddp_find_unused_parameters_true",
    "fsdp",
)


def slurm_rendezvous(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Return host and port of the rendezvous of a SLURM job step; each step has its own port."""
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", "127.0.0.1"))
    host = environment.get("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    port = (
        _FIRST_PORT
        + (int(environment.get("SLURM_JOB_ID", "0")) + int(environment.get("SLURM_STEP_ID", "0")))
        % _PORTS
    )
    return host, int(environment.get("MASTER_PORT", port))


def _cluster_environment(rank: Rank | None) -> ClusterEnvironment:
    """Return the environment that passes this process's rank to Lightning.

    Every launcher's rank is passed in torchrun's variables. Lightning's class for SLURM rejects
    `srun --ntasks=2` without a count per node. It also uses one port for all steps of a job.
    """
    if rank is None:
        return LightningEnvironment()
    if rank.launcher == "srun":
        os.environ.update(rank.as_torchrun(*slurm_rendezvous()))
    new_rendezvous()
    return TorchElasticEnvironment()


def placement(cfg: DictConfig) -> dict[str, Any]:
    """Return the trainer's arguments for the strategy and the cluster environment.

    Args:
        cfg: The config.

    Returns:
        `strategy`, and as `plugin` the cluster environment with this process's rank.

    Raises:
        ConfigError: If this process cannot start the requested processes, the devices do not
            exist, or the strategy is unknown.
    """
    rank, nodes = this_rank(), cfg.trainer.get("num_nodes", 1)
    if rank is None and nodes != 1:
        msg = (
            f"trainer.num_nodes: received {nodes}; train.py starts processes on one machine only; "
            f"start it on each machine with torchrun --nnodes={nodes} ..., or with srun on a SLURM "
            "cluster; both set the number of machines"
        )
        raise ConfigError(msg)
    accelerator = cfg.trainer.get("accelerator")
    if accelerator in ("gpu", "cuda") and not (
        torch.cuda.is_available() or torch.backends.mps.is_available()
    ):
        msg = (
            f"trainer.accelerator: received {accelerator!r}, but this machine has no GPU; "
            "set trainer=cpu"
        )
        raise ConfigError(msg)
    name = cfg.trainer.get("strategy", "auto")
    strategy = (
        _strategy(name, several=rank is not None and rank.world > 1)
        if isinstance(name, str)
        else build_object(cfg, "trainer.strategy")
    )
    return {"strategy": strategy, "plugin": _cluster_environment(rank)}


def _strategy(name: str, *, several: bool) -> str | Strategy:
    if name not in _STRATEGIES:
        msg = f"trainer.strategy: received {name!r}; choose one of {', '.join(_STRATEGIES)}"
        raise ConfigError(msg)
    if name == "fsdp":
        return FSDPStrategy(timeout=_COLLECTIVE_TIMEOUT, state_dict_type="full")
    if name == "auto" and not several:
        return "auto"
    return DDPStrategy(timeout=_COLLECTIVE_TIMEOUT, find_unused_parameters=name.endswith("true"))


def check_processes(cfg: DictConfig, trainer: lightning.Trainer, task: Task) -> None:
    """Check that the number of processes and the strategy suit the data and the task.

    Raises:
        ConfigError: If a batch has fewer samples than there are processes, FSDP is combined with
            a schedule of unfreezing, or BatchNorm is to be synchronised on the CPU.
    """
    _check_batch_norm(cfg, trainer, task)
    batch_size = cfg.data.get("batch_size")
    if isinstance(batch_size, int) and batch_size < trainer.world_size:
        msg = (
            f"data.batch_size: received {batch_size}; {trainer.world_size} processes split each "
            f"batch: set at least {trainer.world_size}"
        )
        raise ConfigError(msg)
    if isinstance(trainer.strategy, FSDPStrategy) and len(task.freezing.stages) > 1:
        msg = (
            "trainer.strategy=fsdp cannot unfreeze layers during training; "
            "set trainer.strategy=ddp for a schedule of unfreezing"
        )
        raise ConfigError(msg)


def _check_batch_norm(cfg: DictConfig, trainer: lightning.Trainer, task: Task) -> None:
    """Check that BatchNorm can be synchronised, and log where its statistics are those of a part.

    Raises:
        ConfigError: If torch cannot synchronise it on this device.
    """
    trained = [
        name
        for name, module in task.network.named_modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
        and task.freezing.first_epoch(f"{name}.weight") is not None
    ]
    if trainer.world_size == 1 or not cfg.train or not trained:
        return
    on_cpu = trainer.strategy.root_device.type == "cpu"
    if on_cpu and cfg.trainer.get("sync_batchnorm"):
        msg = (
            "trainer.sync_batchnorm: received true; torch synchronises BatchNorm on GPUs only: "
            "leave it out"
        )
        raise ConfigError(msg)
    if not cfg.trainer.get("sync_batchnorm") and is_rank_zero():
        advice = "" if on_cpu else "; trainer.sync_batchnorm=true uses the whole batch"
        log.info(
            "BatchNorm (%s and %d more) normalises each process's part of a batch by itself, so "
            "the results differ from those of one process%s",
            trained[0],
            len(trained) - 1,
            advice,
        )


@contextmanager
def unused_parameters_named(task: Task) -> Iterator[None]:
    """Replace DDP's error about unused parameters by one line that names a parameter.

    Args:
        task: The task that is trained.

    Raises:
        ConfigError: Instead of DDP's error.
    """
    try:
        yield
    except RuntimeError as error:
        # Lightning's message for DDP's error, which has no class of its own.
        if "not used in producing the loss" not in str(error):
            raise
        without = [
            name
            for name, p in task.network.named_parameters()
            if p.requires_grad and p.grad is None
        ]
        example = f" ({without[0]}, for example)" if without else ""
        msg = (
            f"the loss does not reach every parameter{example}; "
            "set trainer.strategy=ddp_find_unused_parameters_true"
        )
        raise ConfigError(msg) from error


def barrier() -> None:
    """Wait for the other processes; return at once where there are none."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
