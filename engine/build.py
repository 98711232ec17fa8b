"""Build objects from the config. The only caller of `hydra.utils.instantiate`."""

import json
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import hydra
import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from datamodules.base import SPLITS, TransferDataModule
from engine.checkpoints import AtomicCheckpointIO
from engine.config.validation import ConfigError, check_targets
from engine.processes.devices import check_processes, placement
from engine.processes.ranks import is_rank_zero
from engine.publishing import RUNS, starting_logger
from lightning_modules.base import Task
from lightning_modules.callbacks.curves import Curves
from lightning_modules.callbacks.epoch_seed import EpochSeed
from lightning_modules.callbacks.epoch_timer import EpochTimer
from lightning_modules.callbacks.finite_loss import FiniteLoss
from lightning_modules.callbacks.folder_checkpoint import FolderCheckpoint
from lightning_modules.callbacks.history import History
from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
from lightning_modules.callbacks.pruning import Pruning
from run_folders.errors import UserError, brief
from run_folders.run_folder import RunFolder

PROGRESS_RATE = 10  # per second; drawing the bar takes longer than a small training step


@dataclass
class RunObjects:
    """The objects that a run consists of."""

    datamodule: TransferDataModule[Any]
    task: Task
    trainer: lightning.Trainer


def build(cfg: DictConfig, folder: RunFolder) -> RunObjects:
    """Build datamodule, task and trainer from a validated config, and check that they fit.

    Args:
        cfg: The config.
        folder: The folder that the trainer writes to.

    Returns:
        The objects; the datamodule is set up.

    Raises:
        ConfigError: If the objects do not fit together.
    """
    # In deterministic mode torch fills uninitialized memory. This takes a tenth of the time, and
    # matters only for code that reads memory before writing it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    datamodule: TransferDataModule[Any] = _instantiate(cfg.data)
    datamodule.splits_to_read = SPLITS if cfg.train else ("test",)
    datamodule.setup()
    task: Task = _instantiate(cfg.model)
    if not cfg.train and task.uninitialized():
        msg = (
            f"train=false tests a network without training it, and {task.uninitialized()} would "
            f"have random weights; set model.backbone to weights of the whole network with "
            f"{cfg.data.num_classes} classes, or leave train=false out"
        )
        raise ConfigError(msg)
    faults = datamodule.incompatibilities(task.backbone_config())
    if faults:
        raise ConfigError(
            "\n  ".join(["the data does not fit the backbone; nothing was trained", *faults])
        )
    callbacks = [_instantiate(node) for node in cfg.callbacks.values()] + _own_callbacks(
        cfg, folder
    )
    for callback in callbacks:
        if isinstance(callback, LayerUnfreezing):
            callback.set_plan(task)
    _check_stages_begin(task, cfg.trainer.max_epochs)
    _try_network(datamodule, task)
    trainer = build_trainer(
        cfg, folder, callbacks, _loggers(cfg, folder), _never_trained(task) if cfg.train else ()
    )
    check_processes(cfg, trainer, task)
    return RunObjects(datamodule, task, trainer)


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
        except (RuntimeError, ValueError) as error:
            height, width = batch["pixel_values"].shape[-2:]
            msg = (
                f"the network cannot read images of {width} x {height} pixels ({brief(error)}); "
                f"set data.size or model.image_size"
            )
            raise ConfigError(msg) from error
    task.train()


def _loggers(cfg: DictConfig, folder: RunFolder) -> list[Logger]:
    """Build the loggers, on the first process only.

    A logger resumes the run that the run folder has recorded for it.
    """
    if cfg.plan or not is_rank_zero():
        return []
    runs, loggers = folder.read_json(RUNS), []
    for name, node in cfg.logger.items():
        known = {"run_id": runs[name]} if "run_id" in node and name in runs else {}
        with starting_logger(cfg, str(name)):
            loggers.append(_instantiate(node, **known))
    return loggers


def _never_trained(task: Task) -> set[str]:
    """Return the names, in the task's state dict, of the parameters that train in no epoch."""
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    own = task.network.named_parameters()
    return {
        names[id(parameter)] for name, parameter in own if task.freezing.first_epoch(name) is None
    }


def build_trainer(
    cfg: DictConfig,
    folder: RunFolder,
    callbacks: list[lightning.Callback],
    loggers: list[Logger],
    frozen: Collection[str] = (),
) -> lightning.Trainer:
    """Build the trainer.

    Args:
        cfg: The config.
        folder: The folder that it writes to.
        callbacks: Its callbacks.
        loggers: Its loggers.
        frozen: Names in the task's state dict of the weights that checkpoints share.

    Returns:
        The trainer.

    Raises:
        ConfigError: If Lightning rejects the trainer's arguments.
    """
    where = placement(cfg)
    try:
        trainer: lightning.Trainer = _instantiate(
            cfg.trainer,
            callbacks=callbacks,
            logger=loggers or False,
            strategy=where["strategy"],
            plugins=[AtomicCheckpointIO(frozen), where["plugin"]],
            default_root_dir=str(folder.path),
            enable_model_summary=False,
            enable_checkpointing=any(
                isinstance(callback, ModelCheckpoint) for callback in callbacks
            ),
            enable_progress_bar=any(
                isinstance(callback, RichProgressBar) for callback in callbacks
            ),
        )
    except Exception as error:
        cause = error.__cause__ or error
        msg = f"trainer: {brief(cause, most=None)}"
        raise ConfigError(msg) from error
    # Lightning's own signal handler broadcasts to all processes, which never ends if one of them
    # is gone.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
    return trainer


def progress_bar() -> list[lightning.Callback]:
    """Return a progress bar if stderr is a terminal, else no callback."""
    return (
        [RichProgressBar(refresh_rate=PROGRESS_RATE, leave=False)]
        if sys.stderr.isatty() and is_rank_zero()
        else []
    )


def model_from_checkpoint(cfg: DictConfig, checkpoint: dict[str, Any]) -> Task:
    """Build a run's task from its config and a checkpoint.

    Neither the hub nor the folder of the pretrained backbone is needed.

    Args:
        cfg: The config from the run's config.yaml.
        checkpoint: A checkpoint of the run.

    Returns:
        The task with the checkpoint's weights.
    """
    backbone = json.loads(checkpoint["thaw"]["backbone"])
    known = {"backbone": backbone} if backbone else {}
    # The file of pretrained weights may be gone, and the checkpoint replaces them.
    no_weights = {"weights": None} if "weights" in cfg.model else {}
    task: Task = _instantiate(cfg.model, **known, **no_weights)
    task.load_state_dict(checkpoint["state_dict"])
    return task


def data_from_checkpoint(cfg: DictConfig, checkpoint: dict[str, Any]) -> TransferDataModule[Any]:
    """Build and set up a run's datamodule with the state in a checkpoint.

    The state includes, for example, the tokenizer or the class list.
    """
    state = checkpoint.get(cfg.data._target_.rpartition(".")[2], {})
    known = {"class_list": state["class_list"]} if "class_list" in state else {}
    datamodule: TransferDataModule[Any] = _instantiate(cfg.data, **known)
    datamodule.splits_to_read = SPLITS if cfg.get("train", True) else ("test",)
    datamodule.load_state_dict(state)
    datamodule.setup()
    return datamodule


def _instantiate(node: DictConfig, **more: Any) -> Any:  # noqa: ANN401 - whatever the _target_ is
    """Build the object of a config node.

    Its targets are checked here too, because a config from a run folder has not been validated.
    """
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)  # noqa: S101 - tells the type checker
    check_targets([plain, *more.values()])
    try:
        return hydra.utils.instantiate(
            {key: v for key, v in plain.items() if key not in more}, _convert_="all", **more
        )
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise


def _own_callbacks(cfg: DictConfig, folder: RunFolder) -> list[lightning.Callback]:
    """Return the callbacks of every run, in the order in which they must act at an epoch's end."""
    place: Any = {"dirpath": folder.best_checkpoint.parent, "enable_version_counter": False}
    best = FolderCheckpoint(
        filename=folder.best_checkpoint.stem, monitor=cfg.monitor, mode=cfg.mode, **place
    )
    last = FolderCheckpoint(
        filename=folder.last_checkpoint.stem, save_on_train_epoch_end=True, **place
    )
    timer = EpochTimer()
    history = History(folder, timer)
    curves = [Curves(history)] if cfg.logger else []
    return [
        EpochSeed(cfg.seed),
        timer,
        FiniteLoss(),
        *progress_bar(),
        history,
        *curves,
        best,
        last,
        *_pruning(cfg),
    ]


def _pruning(cfg: DictConfig) -> list[lightning.Callback]:
    """Return the pruning callback if the run is a trial of a search with a pruner."""
    if cfg.sweep.trial is None or cfg.sweep.trial.pruner == "none":
        return []
    from engine.sweeps.study import reporter  # imports optuna

    report = reporter(cfg.sweep.trial, cfg.trainer.max_epochs) if is_rank_zero() else None
    return [Pruning(cfg.monitor, report)]
