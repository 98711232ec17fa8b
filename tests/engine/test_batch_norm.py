"""BatchNorm in several processes: what differs from one process is logged or refused."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from engine.config.errors import ConfigError
from engine.processes.devices import check_processes
from lightning_modules.networks.freezing.plan import FreezingPlan


def check(*, world: int, sync: bool, device: str, frozen: bool, norm: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), norm)
    strategy = SimpleNamespace(root_device=torch.device(device))
    trainer: Any = SimpleNamespace(world_size=world, strategy=strategy)
    plan = FreezingPlan({"1": None} if frozen else {})
    task: Any = SimpleNamespace(network=network, freezing=plan)
    cfg = OmegaConf.create({"train": True, "data": {}, "trainer": {"sync_batchnorm": sync}})
    check_processes(cfg, trainer, task)


@pytest.mark.parametrize(
    ("world", "sync", "device", "frozen", "norm", "logged"),
    [
        (2, False, "cpu", False, nn.BatchNorm2d(2), "so the results differ from those of one"),
        (2, False, "cuda", False, nn.BatchNorm2d(2), "trainer.sync_batchnorm=true uses the whole"),
        (2, True, "cuda", False, nn.BatchNorm2d(2), ""),
        (1, False, "cpu", False, nn.BatchNorm2d(2), ""),
        (2, False, "cpu", True, nn.BatchNorm2d(2), ""),
        (2, False, "cpu", False, nn.GroupNorm(1, 2), ""),
    ],
)
def test_batch_norm_in_several_processes_is_named(
    world: int,
    sync: bool,
    device: str,
    frozen: bool,
    norm: nn.Module,
    logged: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    check(world=world, sync=sync, device=device, frozen=frozen, norm=norm)
    assert logged in caplog.text
    assert bool(logged) == bool(caplog.text)


def test_batch_norm_cannot_be_synchronised_on_the_cpu() -> None:
    with pytest.raises(ConfigError, match="sync_batchnorm: received true; torch synchronises"):
        check(world=2, sync=True, device="cpu", frozen=False, norm=nn.BatchNorm2d(2))
