"""Build the trainer, with the callbacks that every run has."""

import logging
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig

from engine.checkpoints import AtomicCheckpointIO
from engine.config.errors import ConfigError
from engine.config.instantiating import build_object
from engine.config.precision import precision_plugin
from engine.processes.devices import placement
from engine.processes.ranks import is_rank_zero
from lightning_modules.callbacks.curves import Curves
from lightning_modules.callbacks.epoch_seed import EpochSeed
from lightning_modules.callbacks.epoch_timer import EpochTimer
from lightning_modules.callbacks.finite_loss import FiniteLoss
from lightning_modules.callbacks.folder_checkpoint import FolderCheckpoint
from lightning_modules.callbacks.history import History
from lightning_modules.callbacks.pruning import Pruning
from run_folders.errors import UserError, brief
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)

PROGRESS_RATE = 10  # per second; drawing the bar takes longer than a small training step


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
    # Other strategies, such as FSDP, have precision plugins of their own.
    own_plugin = isinstance(where["strategy"], str | DDPStrategy)
    precision = {"precision": None} if own_plugin else {}
    try:
        trainer: lightning.Trainer = build_object(
            cfg,
            "trainer",
            callbacks=callbacks,
            logger=loggers or False,
            strategy=where["strategy"],
            plugins=[AtomicCheckpointIO(frozen), where["plugin"]],
            **precision,
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
        msg = f"trainer: {brief(error, max_chars=None)}"
        raise ConfigError(msg) from error
    profiler = trainer.profiler  # type: ignore[attr-defined]
    if cfg.trainer.get("profiler") and profiler.filename is None:
        # Lightning would write the report to its log, which `filter_known` silences.
        profiler.dirpath = profiler.dirpath or str(folder.path / "profile")
        profiler.filename = "profile"
        if not cfg.plan and is_rank_zero():
            log.info("the profiler's reports are written to %s", profiler.dirpath)
    if own_plugin:
        trainer.strategy.precision_plugin = precision_plugin(
            cfg.trainer.get("precision"), trainer.strategy.root_device.type
        )
    # Lightning's own signal handler broadcasts to all processes, which never ends if one of them
    # is gone.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
    return trainer


@contextmanager
def naming_refusals() -> Iterator[None]:
    """Turn what Lightning itself raises about its arguments or its callbacks into one line."""
    try:
        yield
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        *_, (frame, _) = walk_tb(error.__traceback__)
        own = frame.f_globals.get("__name__", "").startswith("lightning.")
        if isinstance(error, UserError) or not own:
            raise
        msg = f"trainer: {brief(error, max_chars=None)}"
        raise ConfigError(msg) from error


def early_stop(trainer: lightning.Trainer) -> str | None:
    """Return which metric ended the training before its last epoch; None if it was not ended."""
    completed, planned = trainer.current_epoch, trainer.max_epochs
    if not trainer.should_stop or completed == planned:
        return None
    of = "" if planned in (None, -1) else f" of {planned}"
    for callback in trainer.early_stopping_callbacks:
        reason = callback.stopping_reason_message
        if callback.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED:
            reason = (
                f"{callback.monitor} did not improve on {float(callback.best_score):.4f} "
                f"(patience={callback.patience})"
            )
        if reason:
            return f"early stopping ended training after {completed} epochs{of}: {reason}"
    return None


def progress_bar() -> list[lightning.Callback]:
    """Return a progress bar if stderr is a terminal, else no callback."""
    return (
        [RichProgressBar(refresh_rate=PROGRESS_RATE, leave=False)]
        if sys.stderr.isatty() and is_rank_zero()
        else []
    )


def own_callbacks(cfg: DictConfig, folder: RunFolder) -> list[lightning.Callback]:
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
