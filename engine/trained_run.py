"""A trained run, loaded from its folder for predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from engine.build import model_from_checkpoint
from engine.checkpoints import load_checkpoint
from engine.config.places import resolve_target
from engine.config.recorded import read_config
from lightning_modules.base import Task
from run_folders.errors import brief
from run_folders.run_folder import RunFolder, RunFolderError


@dataclass(frozen=True)
class TrainedRun:
    """A trained run, ready for predictions.

    Attributes:
        cfg: Its config.
        task: The task with its best weights, in eval mode on the device.
        data_state: The state of its datamodule in the checkpoint.
        device: The device that computes.
    """

    cfg: DictConfig
    task: Task
    data_state: dict[str, Any]
    device: torch.device

    @property
    def class_names(self) -> list[str]:
        """Names of class 0, 1, ..."""
        return list(self.cfg.data.classes)

    @property
    def inputs(self) -> str:
        """The kind of input, as the run's datamodule states it; empty if it states none."""
        return str(resolve_target(self.cfg.data._target_, "data").inputs)

    @torch.inference_mode()
    def predict(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Run the task on a batch in the run's precision, and return its output on the CPU.

        The task's `forward` describes the output.
        """
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
        device: The device that computes; None for a GPU if there is one, else the CPU.

    Returns:
        The run.

    Raises:
        RunFolderError: If the path is not a run folder, or the device does not exist.
        CheckpointError: If the checkpoint is missing or damaged.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        msg = f"{folder.path} is no run folder: it has no config.yaml"
        raise RunFolderError(msg)
    cfg = read_config(folder.config)
    checkpoint = load_checkpoint(folder.best_checkpoint)
    task = model_from_checkpoint(cfg, checkpoint)
    target = _device(device)
    data_state = checkpoint.get(cfg.data._target_.rpartition(".")[2], {})
    return TrainedRun(cfg, task.eval().to(target), data_state, target)


def _device(name: str | None) -> torch.device:
    """Return the device, and check that it can compute."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        msg = f"--device {name}: {brief(error)}; give cpu, or leave it out"
        raise RunFolderError(msg) from error
    return device
