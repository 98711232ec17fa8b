"""Config -> objects. The only caller of `hydra.utils.instantiate`."""

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
from engine.processes.ranks import is_first
from engine.publishing import RUNS, beginning
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

PROGRESS_RATE = 10  # times a second: drawing the bar costs more than a small step


@dataclass
class RunObjects:
    """What a run consists of."""

    datamodule: TransferDataModule[Any]
    task: Task
    trainer: lightning.Trainer


def build(cfg: DictConfig, folder: RunFolder) -> RunObjects:
    """Build datamodule, task and trainer of a validated config, and hold data and backbone against each other.

    Args:
        cfg: The config.
        folder: Where the trainer writes.

    Returns:
        The parts; the data is set up.

    Raises:
        ConfigError: If they do not fit together.
    """
    # Filling memory that is about to be written costs a tenth of the time, and helps only code that
    # reads it before.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    datamodule: TransferDataModule[Any] = _instantiate(cfg.data)
    datamodule.splits_to_read = SPLITS if cfg.train else ("test",)
    datamodule.setup()
    task: Task = _instantiate(cfg.model)
    if not cfg.train and task.uninitialized():
        msg = (
            f"train=false tests weights as they are, and {task.uninitialized()} would have random ones; take weights that "
            f"cover the whole network and its {cfg.data.num_classes} classes, or leave train=false out"
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
            callback.give_plan(task)
    _check_stages_begin(task, cfg.trainer.max_epochs)
    _try_network(datamodule, task)
    trainer = build_trainer(
        cfg, folder, callbacks, _loggers(cfg, folder), _frozen_for_good(task) if cfg.train else ()
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
            f"callbacks.unfreezing.schedule: epoch {late[0]} never comes, trainer.max_epochs={max_epochs} ends before it "
            f"(epochs count from 0); raise the one, or take the other out"
        )
        raise ConfigError(msg)


def _try_network(datamodule: TransferDataModule[Any], task: Task) -> None:
    """Have the network read one sample, where a datamodule gives one, before anything is trained."""
    batch = datamodule.probe_batch()
    if batch is not None:
        try:
            with torch.no_grad():
                task.eval()(batch)
        except (RuntimeError, ValueError) as error:
            height, width = batch["pixel_values"].shape[-2:]
            reason = brief(error)
            msg = f"the network cannot read images of {width} x {height} pixels ({reason}); set data.size or model.image_size"
            raise ConfigError(msg) from error
    task.train()


def _loggers(cfg: DictConfig, folder: RunFolder) -> list[Logger]:
    """The dashboards, on the first process only; one that the folder remembers a run of goes on with that."""
    if cfg.plan or not is_first():
        return []
    runs, loggers = folder.read_json(RUNS), []
    for name, node in cfg.logger.items():
        known = {"run_id": runs[name]} if "run_id" in node and name in runs else {}
        with beginning(cfg, str(name)):
            loggers.append(_instantiate(node, **known))
    return loggers


def _frozen_for_good(task: Task) -> set[str]:
    """Names in the task's state of the parameters that train in no epoch."""
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
        folder: Where it writes.
        callbacks: Its callbacks.
        loggers: Its loggers.
        frozen: What checkpoints share, names in the task's state.

    Raises:
        ConfigError: If Lightning refuses its arguments.
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
    # Lightning's own handler asks the other processes for a broadcast, which never ends where one
    # of them is gone.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
    return trainer


def progress_bar() -> list[lightning.Callback]:
    """A bar on a terminal, nothing in a log file."""
    return (
        [RichProgressBar(refresh_rate=PROGRESS_RATE, leave=False)]
        if sys.stderr.isatty() and is_first()
        else []
    )


def model_from_checkpoint(cfg: DictConfig, checkpoint: dict[str, Any]) -> Task:
    """Build a run's task from its config and a checkpoint, without the hub or the backbone's folder.

    Args:
        cfg: The run's config.yaml.
        checkpoint: A checkpoint of the run.

    Returns:
        The task with the checkpoint's weights.
    """
    backbone = json.loads(checkpoint["thaw"]["backbone"])
    known = {"backbone": backbone} if backbone else {}
    elsewhere = (
        {"weights": None} if "weights" in cfg.model else {}
    )  # a file that need no longer be there
    task: Task = _instantiate(cfg.model, **known, **elsewhere)
    task.load_state_dict(checkpoint["state_dict"])
    return task


def data_from_checkpoint(cfg: DictConfig, checkpoint: dict[str, Any]) -> TransferDataModule[Any]:
    """Build and set up a run's datamodule with what its checkpoint keeps of it: the tokenizer, the class list."""
    state = checkpoint.get(cfg.data._target_.rpartition(".")[2], {})
    known = {"class_list": state["class_list"]} if "class_list" in state else {}
    datamodule: TransferDataModule[Any] = _instantiate(cfg.data, **known)
    datamodule.splits_to_read = SPLITS if cfg.get("train", True) else ("test",)
    datamodule.load_state_dict(state)
    datamodule.setup()
    return datamodule


def _instantiate(node: DictConfig, **more: Any) -> Any:  # noqa: ANN401 - whatever the _target_ is
    """Build a node; a config read from a run folder has not been validated, so its targets are checked here too."""
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
    """What every run has, in the order in which it has to act at the end of an epoch."""
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
    """For a trial of a search that prunes."""
    if cfg.sweep.trial is None or cfg.sweep.trial.pruner == "none":
        return []
    from engine.sweeps.study import reporter  # imports optuna

    report = reporter(cfg.sweep.trial, cfg.trainer.max_epochs) if is_first() else None
    return [Pruning(cfg.monitor, report)]
