"""A trained run, ready for predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from engine.config.places import resolve_target
from engine.config.precision import precision_plugin
from lightning_modules.base import Task


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
        plugin = precision_plugin(self.cfg.trainer.get("precision"), self.device.type)
        with plugin.forward_context():
            result: torch.Tensor = self.task(plugin.convert_input(moved))
        return result.cpu()
