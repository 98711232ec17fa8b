"""Names and options of version 0.1 and their replacements. No other file knows them."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from run_folders.errors import UserError

log = logging.getLogger(__name__)

_CLASSES = {
    "datamodules.cifar10.CIFAR10DataModule": "datamodules.image.ImageDataModule",
    "datamodules.scene_parse_150.SceneParse150DataModule": (
        "datamodules.segmentation.SegmentationDataModule"
    ),
}


@dataclass(frozen=True)
class _Removed:
    """A removed key or option.

    Attributes:
        instead: What to use or do now.
        unused: The value of the key that had no effect.
        shapes_predictions: Whether networks that use it can no longer be evaluated.
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
        "model.tta_flip averages over mirrored images", unused=0, shapes_predictions=True
    ),
}
_OPTIONS = {
    ("experiment", "cifar10_speedrun"): _Removed(
        "experiment=cifar10_resnet_scratch trains CIFAR-10 from random weights"
    ),
    ("callbacks", "first_layer"): _Removed("leave it out"),
    ("logger", "csv"): _Removed("history.csv in the run folder has the same rows; leave it out"),
    ("logger", "trackio"): _Removed("choose logger=wandb, tensorboard or mlflow"),
    ("model.optimizer", "muon"): _Removed("choose optimizer=adamw or sgd"),
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
    "lightning_modules.loggers.tensorboard.TensorBoardLogger": (
        "use lightning.pytorch.loggers.TensorBoardLogger"
    ),
    "lightning_modules.loggers.trackio.TrackioLogger": _OPTIONS["logger", "trackio"].instead,
}

# Keys of a run's config that have another name now.
_RENAMED_IN_RUNS = {"model.mirror_test": "model.tta_flip"}
_RENAMED = {
    **_RENAMED_IN_RUNS,
    "logger.mlflow.artifacts": "logger.mlflow.artifact_location",
    "logger.mlflow.experiment": "logger.mlflow.experiment_name",
    "logger.mlflow.name": "logger.mlflow.run_name",
    "logger.mlflow.group": "logger.mlflow.tags={group: NAME}",
    "logger.mlflow.log_checkpoint": "logger.mlflow.log_model",
}


_HEADS, _SCHEDULES = "lightning_modules.networks.heads", "lightning_modules.optim.schedules"
_WARMUP = {"warmup": 0.1}
_DECAY = {"decay": 0.9, "min_lr": 1e-7}
# Part of a model -> its words in version 0.1 and their nodes. Each part is a group of configs now.
_NODES: dict[str, dict[str, dict[str, Any]]] = {
    "head": {
        "linear": {"_target_": f"{_HEADS}.LinearHead", "dropout": 0.0},
        "bigru": {"_target_": f"{_HEADS}.BiGRUHead", "hidden": 128, "dropout": 0.0},
        "mlp": {"_target_": f"{_HEADS}.MLPHead", "hidden": [256, 256], "dropout": 0.0},
    },
    "optimizer": {
        "adamw": {"_target_": "torch.optim.AdamW"},
        "sgd": {"_target_": "torch.optim.SGD", "momentum": 0.9, "nesterov": True},
    },
    "schedule": {
        "linear": {"_target_": f"{_SCHEDULES}.linear", **_WARMUP},
        "constant": {"_target_": f"{_SCHEDULES}.constant", **_WARMUP},
        "onecycle": {"_target_": f"{_SCHEDULES}.onecycle", **_WARMUP},
        "exponential": {"_target_": f"{_SCHEDULES}.exponential", **_DECAY},
        "plateau": {
            "_target_": f"{_SCHEDULES}.plateau",
            **_DECAY,
            "patience": 2,
            "monitor": "${monitor}",
            "mode": "${mode}",
        },
    },
}
_LOSS, _SEGMENTATION_LOSS = (
    "lightning_modules.losses.CrossEntropy",
    "lightning_modules.losses.UpsampledCrossEntropy",
)
# Key of the model in version 0.1 -> its key now, if the node of the part has it.
_MOVED = {
    "hidden": "head.hidden",
    "dropout": "head.dropout",
    "momentum": "optimizer.momentum",
    "label_smoothing": "loss.label_smoothing",
    "warmup": "schedule.warmup",
    "decay": "schedule.decay",
    "min_lr": "schedule.min_lr",
    "patience": "schedule.patience",
    "monitor": "schedule.monitor",
    "mode": "schedule.mode",
}
_OVERRIDE = re.compile(r"(?P<prefix>[+]*)model\.(?P<key>\w+)=(?P<value>.*)", re.DOTALL)


class RemovedError(UserError, ValueError):
    """A key, option or class that was removed after version 0.1."""


def removal(key: str, value: object) -> str | None:
    """Return the message for a removed or renamed key or value; None if it still exists."""
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
    """Check that no override of the command line has a removed or renamed key or value.

    Args:
        overrides: `KEY=VALUE`, in a sweep with several values.

    Raises:
        RemovedError: If an override has one.
    """
    for override in overrides:
        key, _, values = override.lstrip("+~").partition("=")
        for value in re.findall(r"[^\s,\[\](){}'\"]+", values) or [""]:
            message = removal(key, value)
            if message is not None:
                msg = f"{key}: {message}"
                raise RemovedError(msg)


def translate_overrides(overrides: Iterable[str]) -> list[str]:
    """Return overrides with the keys of version 0.1 in their present form.

    Example:
        `model.head=bigru` becomes `head=bigru`, and `model.hidden=64` becomes
        `model.head.hidden=64`.
    """
    overrides = list(overrides)
    own = any(
        re.match(r"\+*model\._target_=(?!lightning_modules\.)", override) for override in overrides
    )  # the arguments of an own task may have the same names
    if own:
        return overrides
    return [new for override in overrides for new in translate_override(override)]


def translate_override(override: str) -> list[str]:
    """Return one override in its present form, which may be two overrides."""
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return [override]
    prefix, key, value = match["prefix"], match["key"], match["value"]
    if key in _NODES and not value.startswith(("{", "null")):
        return [f"{key}={value}"]
    if key not in _MOVED:
        return [override]
    # Thaw 0.1 had Nesterov momentum only if the momentum was above 0.
    plain = key == "momentum" and value.strip("0.") == ""
    prefix = "++" if prefix == "++" else ""  # the key exists now
    return [
        f"{prefix}model.{_MOVED[key]}={value}",
        *(["model.optimizer.nesterov=false"] if plain else []),
    ]


def translate_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search space with the keys of version 0.1 in their present form."""
    return {
        _translated_key(key): {
            name: {_translated_key(k): v for k, v in value.items()} if name == "when" else value
            for name, value in entry.items()
        }
        if isinstance(entry, Mapping)
        else entry
        for key, entry in space.items()
    }


def _translated_key(key: str) -> str:
    return translate_override(f"{key}=1")[0].removesuffix("=1")


def translate_model(cfg: DictConfig, *, of_a_run: bool = False) -> None:
    """Turn the parts of a model that are words or keys of version 0.1 into nodes, in place.

    Args:
        cfg: The config.
        of_a_run: Whether it is the config of a run. Otherwise the log names keys without effect,
            which are deleted.
    """
    model = cfg.get("model")
    if not isinstance(model, DictConfig):
        return
    with open_dict(model):
        for part, words in _NODES.items():
            word = model.get(part)
            if isinstance(word, str) and word in words:
                model[part] = words[word]
        if "label_smoothing" in model and "loss" not in model:
            segments = str(model.get("_target_")).endswith("Segmenter")
            target = _SEGMENTATION_LOSS if segments else _LOSS
            model.loss = {"_target_": target, "label_smoothing": 0.0}
        # The arguments of an own task may have the same names.
        ours = str(model.get("_target_")).startswith("lightning_modules.")
        for old in [key for key in model if ours and key in _MOVED]:
            part, _, key = _MOVED[str(old)].partition(".")
            node = model.get(part)
            value = model.pop(old)
            if not isinstance(node, DictConfig) or key not in node:
                if not of_a_run:
                    log.info("model.%s=%s is dropped: model.%s has no such key", old, value, part)
            else:
                node[key] = value
                if key == "momentum":  # torch takes no Nesterov momentum of 0
                    node.nesterov = value > 0


def translate_config(cfg: DictConfig, *, to_train: bool = False) -> None:
    """Translate the config of a run folder to the current names, in place.

    Args:
        cfg: The config.
        to_train: Whether the run is to be resumed, not only evaluated or used for prediction.

    Raises:
        RemovedError: If the run needs something that was removed.
    """
    for key, value, removed in _removed_in(cfg):
        if value != removed.unused and (to_train or removed.shapes_predictions):
            still_possible = (
                "only its report can be written"
                if removed.shapes_predictions
                else "it can be evaluated, not trained further"
            )
            msg = (
                f"this run of version 0.1 has {key}={value}, which was removed in version 0.2; "
                f"{still_possible}"
            )
            raise RemovedError(msg)
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(cfg, parent)
        if removed.unused is None or key in _KEYS:
            del node[leaf]
        else:
            node[leaf] = removed.unused
    for old, new in _RENAMED_IN_RUNS.items():
        parent, _, leaf = old.rpartition(".")
        node = OmegaConf.select(cfg, parent)
        if isinstance(node, DictConfig) and leaf in node:
            node[new.rpartition(".")[2]] = node.pop(leaf)
    translate_model(cfg, of_a_run=True)
    target = OmegaConf.select(cfg, "data._target_")
    if target in _CLASSES:
        cfg.data._target_ = _CLASSES[target]
    data = cfg.get("data")
    if isinstance(data, DictConfig) and data.get("in_memory") is False and "check" not in data:
        with open_dict(data):
            data.check = True  # version 0.1 always did; the digest of the data covers the contents


def _removed_in(cfg: DictConfig) -> Iterator[tuple[str, Any, _Removed]]:
    for key, removed in _KEYS.items():
        parent = OmegaConf.select(cfg, key.rpartition(".")[0])
        if isinstance(parent, DictConfig) and key.rpartition(".")[2] in parent:
            yield key, OmegaConf.select(cfg, key), removed
    for (key, option), removed in _OPTIONS.items():
        if "." in key and OmegaConf.select(cfg, key) == option:
            yield key, option, removed


def translate_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint with datamodule states under the current names of their classes."""
    names = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in _CLASSES.items()}
    return {names.get(key, key): value for key, value in checkpoint.items()}
