"""Build datamodule, task and trainer from the config, and check that they fit together."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from omegaconf import DictConfig

from datamodules.base import TransferDataModule
from engine.backbone_source import BackboneSource, backbone_source, resumed_source
from engine.config.errors import ConfigError
from engine.config.instantiating import build_object
from engine.processes.devices import check_processes
from engine.publishing.loggers import build_loggers
from engine.trainer import build_trainer, own_callbacks
from lightning_modules.base import Task
from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
from lightning_modules.networks.backbones.features import FEATURES, HEAD
from lightning_modules.networks.classifier import Classifier
from run_folders.errors import brief
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)

# Rates of the backbone below this one suit pretrained weights only.
_LOWEST_RATE_FOR_RANDOM_WEIGHTS = 1e-4


@dataclass
class RunObjects:
    """The objects that a run consists of.

    Attributes:
        source: The finished run whose backbone the task starts from, if there is one.
    """

    datamodule: TransferDataModule[Any]
    task: Task
    trainer: lightning.Trainer
    source: BackboneSource | None = None


def build(cfg: DictConfig, folder: RunFolder, checkpoint: Path | None = None) -> RunObjects:
    """Build datamodule, task and trainer from a validated config, and check that they fit.

    Args:
        cfg: The config.
        folder: The folder that the trainer writes to.
        checkpoint: The checkpoint that a resumed run starts from.

    Returns:
        The objects; the datamodule is set up.

    Raises:
        ConfigError: If the objects do not fit together.
    """
    # In deterministic mode torch fills uninitialized memory. This takes a tenth of the time, and
    # matters only for code that reads memory before writing it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    source = resumed_source(cfg, folder, checkpoint) if checkpoint else None
    source = source or backbone_source(cfg)
    datamodule: TransferDataModule[Any] = build_object(cfg, "data")
    if source is not None:
        datamodule.use_backbone_of(source.data_state)
    trained = ("train", "val") if cfg.train else ()
    datamodule.splits_to_read = (*trained, *(("test",) if cfg.test else ()))
    datamodule.samples = cfg.get("samples") or {}
    datamodule.repeats_batches = bool(cfg.trainer.get("overfit_batches"))
    datamodule.setup()
    task: Task = build_object(cfg, "model", **({"backbone": source.values} if source else {}))
    if source is not None:
        source.load_into(task)
    if not cfg.train and task.uninitialized():
        msg = (
            f"train=false tests a network without training it, and {task.uninitialized()} would "
            f"have random weights; set model.backbone to weights of the whole network for "
            f"these classes, or leave train=false out"
        )
        raise ConfigError(msg)
    task.logs_metrics = False  # `History` and `Curves` do
    labels = datamodule.labels_of(datamodule.splits_to_read[-1])
    fault = "" if labels is None else task.label_fault(labels[:1])
    if fault:
        msg = f"the data does not fit the model; nothing was trained: {fault}"
        raise ConfigError(msg)
    check_input_limits(datamodule, task)
    callbacks = [
        *(build_object(cfg, f"callbacks.{name}") for name in cfg.callbacks),
        *own_callbacks(cfg, folder),
    ]
    for callback in callbacks:
        if isinstance(callback, LayerUnfreezing):
            callback.set_plan(task)
    _check_stages_begin(task, cfg.trainer.max_epochs)
    if cfg.train:
        task.new_optimizer()  # raises its errors before anything is computed
        if source is None:
            _warn_about_low_rate(cfg.model, task)
    if cfg.train:
        _check_validates(cfg.trainer, len(datamodule.train_dataloader()))
    _check_batch_limits(cfg.trainer, datamodule)
    _check_monitor(cfg, datamodule, task)
    _try_network(datamodule, task)
    loggers = build_loggers(cfg, folder)
    frozen = _never_trained(task) if cfg.train else ()
    trainer = build_trainer(cfg, folder, callbacks, loggers, frozen)
    # Lightning loads a checkpoint's weights first and converts them after that.
    trainer.precision_plugin.convert_module(task)
    check_processes(cfg, trainer, task)
    return RunObjects(datamodule, task, trainer, source)


def check_input_limits(datamodule: TransferDataModule[Any], task: Task) -> None:
    """Raise `ConfigError` if the data exceeds what the backbone can read."""
    faults = datamodule.incompatibilities(task.input_limits())
    if faults:
        msg = "the data does not fit the backbone"
        raise ConfigError(msg, *faults)


def _warn_about_low_rate(model: DictConfig, task: Task) -> None:
    """Warn if a backbone of random weights, which a mapping builds, has a low learning rate."""
    backbone, rate = model.get("backbone"), task.lrs[FEATURES]
    is_random = isinstance(backbone, DictConfig) and "_target_" not in backbone
    trains = any(parameter.requires_grad for parameter in task.backbone.parameters())
    if (
        is_random
        and trains
        and model.get("weights") is None
        and 0 < rate < _LOWEST_RATE_FOR_RANDOM_WEIGHTS
    ):
        log.warning(
            "model.backbone_lr=%g is a rate for pretrained weights, and this backbone has random "
            "ones; try 1e-3",
            rate,
        )


def _check_monitor(cfg: DictConfig, datamodule: TransferDataModule[Any], task: Task) -> None:
    """Raise `ConfigError` if the labels of validation do not suffice for the monitored metric."""
    labels = datamodule.labels_of("val") if cfg.train else None
    if labels is None:
        return
    metrics = task.metrics_on(labels)
    if metrics.get(str(cfg.monitor).removeprefix("val/"), 0.0) is None:
        msg = (
            f"monitor: {cfg.monitor} is not defined on the val split, as for labels of one class "
            f"only; choose another metric, or a val split with other samples"
        )
        raise ConfigError(msg)


def _check_batch_limits(trainer: DictConfig, datamodule: TransferDataModule[Any]) -> None:
    """Raise `ConfigError` if a share of the batches would be no batch at all."""
    for split in datamodule.splits_to_read:
        key = f"limit_{split}_batches"
        limit = trainer.get(key)
        if not isinstance(limit, float) or limit >= 1:
            continue
        batches = len(getattr(datamodule, f"{split}_dataloader")())
        if int(batches * limit) < 1:
            msg = (
                f"trainer.{key}: received {limit}, and the {split} split has {batches} batches, so "
                f"none would be read; set a number of batches, such as trainer.{key}=1"
            )
            raise ConfigError(msg)


def _check_validates(trainer: DictConfig, batches: int) -> None:
    """Raise `ConfigError` if training would end before the first validation.

    Args:
        trainer: The node of the trainer.
        batches: Training batches of an epoch.
    """
    limit = trainer.get("overfit_batches") or trainer.get("limit_train_batches")
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    interval, steps = trainer.get("val_check_interval"), trainer.get("max_steps") or -1
    if isinstance(interval, int) and interval > batches:
        msg = (
            f"trainer.val_check_interval: received {interval}, and an epoch has {batches} "
            f"batches; choose at most {batches}"
        )
        raise ConfigError(msg)
    needed = -(-batches // (trainer.get("accumulate_grad_batches") or 1))
    # An integer counts batches, so 1 is not the whole epoch that 1.0 is.
    once = interval is None or (isinstance(interval, float) and interval == 1)
    if 0 < steps < needed and once:
        msg = (
            f"trainer.max_steps={steps} ends within the first epoch of {needed} steps, so nothing "
            f"is validated; set trainer.max_steps={needed} or more, or trainer.val_check_interval"
        )
        raise ConfigError(msg)


def _check_stages_begin(task: Task, max_epochs: int | None) -> None:
    late = [
        epoch
        for epoch in task.freezing.stages
        if max_epochs is not None and 0 <= max_epochs <= epoch
    ]
    if late:
        msg = (
            f"callbacks.unfreezing.schedule: epoch {late[0]} is never reached, because "
            f"trainer.max_epochs={max_epochs} ends before it (epochs count from 0); raise "
            f"trainer.max_epochs, or remove the epoch from the schedule"
        )
        raise ConfigError(msg)


def _try_network(datamodule: TransferDataModule[Any], task: Task) -> None:
    """Run the network on one sample before training, if the datamodule provides one."""
    batch = datamodule.probe_batch()
    if batch is not None:
        try:
            with torch.no_grad():
                task.eval()(batch)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ConfigError(_network_fault(task, batch, error)) from error
    task.train()


def _network_fault(task: Task, batch: Any, error: Exception) -> str:  # noqa: ANN401 - each task has its batch type
    """Return whether the backbone or the head fails on a batch."""
    height, width = batch["pixel_values"].shape[-2:]
    size = (
        f"the network cannot read images of {width} x {height} pixels ({brief(error)}); "
        f"set data.size or model.image_size"
    )
    if not isinstance(task.network, Classifier):  # the head of a segmentation network reads maps
        return size
    try:
        with torch.no_grad():
            task.features(batch)
    except (RuntimeError, ValueError, TypeError):
        return size
    head = type(task.network.get_submodule(HEAD)).__name__
    return f"model.head: {head} fails on the features ({brief(error)}); correct its forward"


def _never_trained(task: Task) -> set[str]:
    """Return the names, in the task's state dict, of the parameters that train in no epoch."""
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    own = task.network.named_parameters()
    return {
        names[id(parameter)] for name, parameter in own if task.freezing.first_epoch(name) is None
    }
