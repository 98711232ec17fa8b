"""A finished run as the source of another run's backbone: `model.backbone=RUN`."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from engine.checkpoints import load_checkpoint, stored_backbone
from engine.config.errors import ConfigError
from engine.config.places import resolve_target
from engine.config.recorded import read_trained_config
from engine.trained_run import data_state
from lightning_modules.base import Task
from lightning_modules.networks.backbones.features import BACKBONE
from run_folders.run_folder import RunFolder
from run_folders.untrusted import read_yaml

log = logging.getLogger(__name__)
_PREFIX = f"network.{BACKBONE}."


@dataclass(frozen=True)
class BackboneSource:
    """A finished run whose backbone another run starts from (`model.backbone=RUN`).

    Attributes:
        values: The values that rebuild the backbone: architecture and input format.
        weights: Name in the backbone -> weights of the run's best epoch.
        data_state: The state of its datamodule, which includes the tokenizer of texts.
        facts: Run folder, epoch and digest of the checkpoint, and data of the run, for
            provenance.json.
    """

    values: dict[str, Any]
    weights: Mapping[str, torch.Tensor]
    data_state: dict[str, Any]
    facts: dict[str, Any]

    def load_into(self, task: Task) -> None:
        """Load the weights into the backbone of a task; its new parts may have none.

        Raises:
            ConfigError: If the run does not have all weights of the task's backbone.
        """
        new = tuple(f"{part}." for part in getattr(task.features, "new_parts", ()))
        weights = task.backbone.state_dict()
        for name, built in weights.items():
            if name not in self.weights and name.startswith(new):
                continue
            stored = tuple(self.weights[name].shape) if name in self.weights else "missing"
            if stored != tuple(built.shape):
                msg = (
                    f"model.backbone={self.facts['run']}: {name} is {stored} in this run and "
                    f"{tuple(built.shape)} in this model; set model.pooling or model.image_size as "
                    f"in its config.yaml"
                )
                raise ConfigError(msg)
            weights[name] = self.weights[name]
        task.backbone.load_state_dict(weights)


def backbone_text(model: Mapping[str, Any], source: BackboneSource | None) -> str | None:
    """Return the backbone and where its weights are from; None if the model has no such key.

    Args:
        model: The node `model` of the config.
        source: The finished run that the weights are from, if any.
    """
    value, file = model.get("backbone"), model.get("weights")
    if value is None:
        return None
    if isinstance(value, Mapping):
        if "_target_" in value:
            return str(value["_target_"])
        name = value.get("architecture") or value.get("model_type")
        return f"{name} (random weights)" if file is None else f"{name} (weights: {file})"
    if source is not None:
        return f"{value} (a finished run, epoch {source.facts['epoch']})"
    return f"{value} (pretrained)" if file is None else f"{value} (weights: {file})"


def backbone_source(cfg: DictConfig) -> BackboneSource | None:
    """Open the finished run that `model.backbone` names; return None if it names no run folder.

    Raises:
        ConfigError: If the run has not finished, reads another kind of input, or its backbone is a
            class of an own package; or if another setting contradicts it.
    """
    value = cfg.model.get("backbone")
    if not isinstance(value, str) or not (folder := RunFolder(Path(value))).config.is_file():
        return None
    _check(value, _run_fault(folder))
    recorded = read_trained_config(folder.config)
    _check(value, _contradiction(cfg, folder, recorded))
    checkpoint = load_checkpoint(folder.best_checkpoint)
    values = stored_backbone(checkpoint, folder.best_checkpoint)
    own_class = "its backbone is a class of an own package; name it, as its config.yaml does"
    _check(value, "" if values else own_class)
    state = data_state(recorded, checkpoint, folder.best_checkpoint)
    log.info("the backbone is that of %s, epoch %s", folder.path, checkpoint["epoch"])
    facts = _source_facts(folder, checkpoint["epoch"])
    return BackboneSource(values, _weights(checkpoint), state, facts)


def resumed_source(cfg: DictConfig, folder: RunFolder, path: Path) -> BackboneSource | None:
    """Return the source of a resumed run's backbone, with the weights that the run has now.

    The folder of that other run is not needed. Returns None if `model.backbone` is no such run.

    Args:
        cfg: The config of the resumed run.
        folder: Its folder.
        path: The checkpoint that it resumes from.
    """
    facts = folder.read_json("provenance.json").get("backbone")
    if facts is None or facts["run"] != cfg.model.get("backbone"):
        return None
    checkpoint = load_checkpoint(path)
    values, state = stored_backbone(checkpoint, path), data_state(cfg, checkpoint, path)
    return BackboneSource(values, _weights(checkpoint), state, facts)


def _weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(_PREFIX): weight
        for name, weight in checkpoint["state_dict"].items()
        if name.startswith(_PREFIX)
    }


def _check(value: str, fault: str) -> None:
    if fault:
        msg = f"model.backbone={value}: {fault}"
        raise ConfigError(msg)


def _run_fault(folder: RunFolder) -> str:
    """Return why a run cannot be the source of any backbone; empty if it can."""
    state = folder.read_json("status.json").get("state", "unknown")
    if state != "finished":
        return (
            f"this run has not finished (its state is {state}); finish it with ckpt_path=last and "
            f"hydra.run.dir={folder.path}, or give another run"
        )
    config = read_yaml(folder.config)
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or "_target_" not in model:
        return "this is no run of train.py; for one of keras_bert: python -m keras_bert convert"
    return ""


def _contradiction(cfg: DictConfig, folder: RunFolder, recorded: DictConfig) -> str:
    """Return how a run's config contradicts this one; empty if it fits."""
    before, now = (
        resolve_target(target, "data").inputs or "other data"
        for target in (recorded.data._target_, cfg.data._target_)
    )
    if before != now:
        return f"this run reads {before}, and this config {now}; give a run with {now}"
    if cfg.model.get("weights") is not None:
        return "the run has the weights; leave model.weights out"
    tokenizer = cfg.data.get("tokenizer")
    if isinstance(tokenizer, str) and Path(tokenizer).resolve() != folder.path:
        return f"the run has a tokenizer; leave data.tokenizer={tokenizer} out"
    return ""


def _source_facts(folder: RunFolder, epoch: int) -> dict[str, Any]:
    """Return what provenance.json records about the source of a backbone."""
    before = folder.read_json("provenance.json")
    with folder.best_checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    data = {
        split: {key: facts.get(key) for key in ("rows", "sha256")}
        for split, facts in before.get("data", {}).items()
        if isinstance(facts, dict)
    }
    facts = {"run": str(folder.path), "epoch": epoch, "checkpoint_sha256": digest, "data": data}
    return {**facts, "backbone": before["backbone"]} if "backbone" in before else facts
