"""Names and options of version 0.1: what they are called now, or what to use instead. No other file knows them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from run_folders.errors import UserError

_CLASSES = {
    "datamodules.cifar10.CIFAR10DataModule": "datamodules.image.ImageDataModule",
    "datamodules.scene_parse_150.SceneParse150DataModule": "datamodules.segmentation.SegmentationDataModule",
}


@dataclass(frozen=True)
class _Removed:
    """A key or an option that is gone.

    Attributes:
        instead: What to do now.
        unused: The value of a key that asked for nothing.
        shapes_predictions: Whether a network cannot be evaluated without it.
    """

    instead: str
    unused: Any = None
    shapes_predictions: bool = False


_KEYS = {
    "data.augmentation.small_crops": _Removed(
        "data.augmentation.crop_padding cuts windows of the full size"
    ),
    "model.bias_lr": _Removed("biases and norms train with model.backbone_lr"),
    "model.shift_test": _Removed(
        "model.mirror_test averages over mirrored images", unused=0, shapes_predictions=True
    ),
}
_OPTIONS = {
    ("experiment", "cifar10_speedrun"): _Removed(
        "experiment=cifar10_resnet_scratch trains CIFAR-10 from random weights"
    ),
    ("callbacks", "first_layer"): _Removed("leave it out"),
    ("logger", "csv"): _Removed("history.csv in the run folder has the same rows; leave it out"),
    ("logger", "trackio"): _Removed("choose logger=wandb, tensorboard or mlflow"),
    ("model.optimizer", "muon"): _Removed("choose model.optimizer=adamw or sgd"),
    ("data.augmentation.flip", "alternating"): _Removed(
        "data.augmentation.flip=true mirrors at random", unused=True
    ),
    ("model.backbone.architecture", "whitened_net"): _Removed(
        "take {architecture: small_resnet}", shapes_predictions=True
    ),
}
_TARGETS = {
    **{old: f"use {new}" for old, new in _CLASSES.items()},
    "lightning_modules.callbacks.first_layer.FirstLayerFromData": "leave it out",
    "lightning_modules.loggers.csv.CSVLogger": _OPTIONS["logger", "csv"].instead,
    "lightning_modules.loggers.mlflow.MLFlowLogger": "use lightning.pytorch.loggers.MLFlowLogger",
    "lightning_modules.loggers.tensorboard.TensorBoardLogger": "use lightning.pytorch.loggers.TensorBoardLogger",
    "lightning_modules.loggers.trackio.TrackioLogger": _OPTIONS["logger", "trackio"].instead,
}

_RENAMED = {
    "logger.mlflow.artifacts": "logger.mlflow.artifact_location",
    "logger.mlflow.experiment": "logger.mlflow.experiment_name",
    "logger.mlflow.name": "logger.mlflow.run_name",
    "logger.mlflow.group": "logger.mlflow.tags={group: NAME}",
    "logger.mlflow.log_checkpoint": "logger.mlflow.log_model",
}


class RemovedError(UserError, ValueError):
    """Something that version 0.1 had is asked for."""


def removal(key: str, value: object) -> str | None:
    """What to say where a key of the config or one of its values is gone; None where it is not."""
    if key in _RENAMED:
        return f"was renamed in version 0.2; use {_RENAMED[key]}"
    if key in _KEYS:
        return f"was removed in version 0.2; {_KEYS[key].instead}"
    if isinstance(value, str) and (key, value) in _OPTIONS:
        return (
            f"received {value!r}, which was removed in version 0.2; {_OPTIONS[key, value].instead}"
        )
    if isinstance(value, str) and key.endswith("._target_") and value in _TARGETS:
        return f"received {value!r}, which was removed in version 0.2; {_TARGETS[value]}"
    return None


def check_overrides(overrides: Iterable[str]) -> None:
    """Raise `RemovedError` where an override of the command line asks for what is gone.

    Args:
        overrides: `KEY=VALUE`, of a sweep with several values.
    """
    for override in overrides:
        key, _, values = override.lstrip("+~").partition("=")
        for value in re.findall(r"[^\s,\[\](){}'\"]+", values) or [""]:
            said = removal(key, value)
            if said is not None:
                msg = f"{key}: {said}"
                raise RemovedError(msg)


def translate_config(cfg: DictConfig, *, to_train: bool = False) -> None:
    """Bring the config of a run folder to today's names, in place.

    Args:
        cfg: The config.
        to_train: Whether the run is to go on, and not only to be evaluated or to predict.

    Raises:
        RemovedError: If that needs what is gone.
    """
    for key, value, gone in _removed_in(cfg):
        if value != gone.unused and (to_train or gone.shapes_predictions):
            rest = (
                "it can only be reported"
                if gone.shapes_predictions
                else "it can be evaluated, not trained further"
            )
            msg = f"this run of version 0.1 has {key}={value}, which was removed in version 0.2; {rest}"
            raise RemovedError(msg)
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(cfg, parent)
        if gone.unused is None or key in _KEYS:
            del node[leaf]
        else:
            node[leaf] = gone.unused
    target = OmegaConf.select(cfg, "data._target_")
    if target in _CLASSES:
        cfg.data._target_ = _CLASSES[target]


def _removed_in(cfg: DictConfig) -> Iterator[tuple[str, Any, _Removed]]:
    for key, gone in _KEYS.items():
        parent = OmegaConf.select(cfg, key.rpartition(".")[0])
        if isinstance(parent, DictConfig) and key.rpartition(".")[2] in parent:
            yield key, OmegaConf.select(cfg, key), gone
    for (key, option), gone in _OPTIONS.items():
        if "." in key and OmegaConf.select(cfg, key) == option:
            yield key, option, gone


def translate_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with the states of datamodules under the names that their classes have now."""
    names = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in _CLASSES.items()}
    return {names.get(key, key): value for key, value in checkpoint.items()}
