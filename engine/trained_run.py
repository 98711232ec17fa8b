"""A run's best checkpoint, ready to be asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from engine.build import model_from_checkpoint
from engine.checkpoints import load_checkpoint
from engine.config.recorded import read_config
from lightning_modules.base import Task
from run_folders.errors import brief
from run_folders.run_folder import RunFolder, RunFolderError


@dataclass(frozen=True)
class TrainedRun:
    """What is left of a run.

    Attributes:
        cfg: Its config.
        task: Its best weights, in eval mode on the device.
        data_state: What its datamodule left in the checkpoint.
        device: Where to compute.
    """

    cfg: DictConfig
    task: Task
    data_state: dict[str, Any]
    device: torch.device

    @property
    def class_names(self) -> list[str]:
        """Name of class 0, 1, ..."""
        return list(self.cfg.data.classes)

    @torch.inference_mode()
    def predict(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """What the task says of a batch, on the CPU, computed in the run's precision: see its `forward`."""
        moved = {key: value.to(self.device) for key, value in batch.items()}
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.cfg.trainer.precision == "bf16-mixed"
        ):
            result: torch.Tensor = self.task(moved)
        return result.cpu()


def open_run(path: Path, device: str | None = None) -> TrainedRun:
    """Load a run's best checkpoint, without the hub or the backbone's folder.

    Args:
        path: The run folder.
        device: Where to compute; None takes a GPU where there is one.

    Returns:
        The run.

    Raises:
        RunFolderError: If it is no run folder, or there is no such device.
        CheckpointError: If the checkpoint is missing or damaged.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        msg = f"{folder.path} is no run folder: it has no config.yaml"
        raise RunFolderError(msg)
    cfg = read_config(folder.config)
    checkpoint = load_checkpoint(folder.best_checkpoint)
    task = model_from_checkpoint(cfg, checkpoint)
    place = _device(device)
    return TrainedRun(
        cfg, task.eval().to(place), checkpoint.get(cfg.data._target_.rpartition(".")[2], {}), place
    )


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        msg = f"--device {name}: {brief(error)}; give cpu, or leave it out"
        raise RunFolderError(msg) from error
    return device
