"""A trained run, and the objects that its config and checkpoint restore."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from datamodules.base import TransferDataModule
from engine.checkpoints import refusal, stored_backbone
from engine.config.errors import ConfigError
from engine.config.instantiating import build_object
from engine.config.places import resolve_target
from engine.config.precision import precision_plugin
from lightning_modules.base import Task
from lightning_modules.networks.tokens.errors import TokenError
from lightning_modules.networks.tokens.merging import MergedTokens
from run_folders.errors import brief
from run_folders.signatures.hints import hints_of
from run_folders.signatures.values import value_faults
from run_folders.value_types import type_fault


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


def set_merged_tokens(cfg: DictConfig, merged: MergedTokens | None) -> None:
    """Let a run's network merge other numbers of tokens than in training.

    Args:
        cfg: The config from the run's config.yaml, changed in place.
        merged: What `model.merge_tokens` may be. A number keeps the run's `inflection` and
            `proportional`. None keeps all of the run's settings.

    Raises:
        ConfigError: If the run's model has no such setting, or the value is none for it.
    """
    if merged is None:
        return
    hints = hints_of(resolve_target(cfg.model._target_, "model"))
    if "merge_tokens" not in hints:
        kind = cfg.model._target_.rpartition(".")[2]
        msg = f"merge_tokens: a {kind} has no vision transformer; leave the option out"
        raise ConfigError(msg)
    for fault in value_faults(merged, hints["merge_tokens"], "merge_tokens"):
        raise ConfigError(": ".join(fault))
    before = cfg.model.get("merge_tokens")
    kept = before if isinstance(merged, int) and isinstance(before, DictConfig) else {}
    cfg.model.merge_tokens = {**kept, "merged": merged} if kept else merged


def model_from_checkpoint(cfg: DictConfig, checkpoint: dict[str, Any], path: Path) -> Task:
    """Build a run's task from its config and a checkpoint.

    Neither the hub nor the folder of the pretrained backbone is needed.

    Args:
        cfg: The config from the run's config.yaml.
        checkpoint: A checkpoint of the run.
        path: The file of the checkpoint, for messages.

    Returns:
        The task with the checkpoint's weights.

    Raises:
        CheckpointError: If no network can be built from config and checkpoint, or the weights do
            not fit it.
        TokenError: If the network does not allow the merged tokens of the config.
    """
    backbone = stored_backbone(checkpoint, path)
    known = {"backbone": backbone} if backbone else {}
    # The file of pretrained weights may be gone, and the checkpoint replaces them.
    no_weights = {"weights": None} if "weights" in cfg.model else {}
    try:
        task: Task = build_object(cfg, "model", **known, **no_weights)
        # The weights are loaded in the precision in which they were trained.
        precision_plugin(cfg.trainer.get("precision"), "cpu").convert_module(task)
        task.load_state_dict(checkpoint["state_dict"])
    except (ConfigError, TokenError):
        raise
    except Exception as error:  # constructors raise any exception for values of a stranger
        reason = f"it does not fit the model in config.yaml ({brief(error)})"
        raise refusal(path, reason) from error
    return task


def data_state(cfg: DictConfig, checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the state of a run's datamodule in a checkpoint.

    Args:
        cfg: The config from the run's config.yaml.
        checkpoint: A checkpoint of the run.
        path: The file of the checkpoint, for messages.

    Raises:
        CheckpointError: If it is not what the datamodule saves.
    """
    name = cfg.data._target_.rpartition(".")[2]
    state: dict[str, Any] = checkpoint.get(name, {})
    datamodule = resolve_target(cfg.data._target_, "data")
    fault = type_fault(state, datamodule.state_type, name) or datamodule.state_fault(state)
    size = state.get("size") if not fault else None
    if size is not None and not 0 < math.prod(size) <= cfg.data.get("max_pixels", math.inf):
        fault = f"{name}.size is {size}, which are 0 pixels or more than data.max_pixels"
    if fault:
        raise refusal(path, fault)
    return state


def data_from_checkpoint(
    cfg: DictConfig, checkpoint: dict[str, Any], path: Path, test_data: Path | None = None
) -> TransferDataModule[Any]:
    """Build and set up a run's datamodule with the state in a checkpoint.

    Args:
        cfg: The config from the run's config.yaml.
        checkpoint: A checkpoint of the run. Its state of the datamodule includes, for example, the
            tokenizer or the class list.
        path: The file of the checkpoint, for messages.
        test_data: File or folder that is read in place of the run's data; None reads that.

    Returns:
        The datamodule.
    """
    datamodule = restored_data(cfg, data_state(cfg, checkpoint, path))
    datamodule.splits_to_read, datamodule.test_data = ("test",), test_data
    datamodule.setup()
    return datamodule


def restored_data(cfg: DictConfig, state: dict[str, Any]) -> TransferDataModule[Any]:
    """Build a run's datamodule with its state, such as the tokenizer; `setup` reads the data.

    Args:
        cfg: The config from the run's config.yaml.
        state: The state of the datamodule in a checkpoint; see `data_state`.
    """
    known = {"class_list": state["class_list"]} if "class_list" in state else {}
    datamodule: TransferDataModule[Any] = build_object(cfg, "data", **known)
    datamodule.samples = cfg.get("samples") or {}
    datamodule.load_state_dict(state)
    return datamodule
