"""Publish a finished run to the dashboards, using only the content of its folder."""

import logging
from functools import partial
from pathlib import Path

import lightning
from lightning.pytorch.loggers import Logger, MLFlowLogger
from omegaconf import DictConfig

from engine.config.redaction import hide, secret_values
from engine.publishing.contents import run_contents
from lightning_modules.callbacks.folder_checkpoint import FolderCheckpoint
from lightning_modules.loggers.base import Content, Dashboard, FinalMetrics
from run_folders.errors import brief
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)


def publish(cfg: DictConfig, folder: RunFolder, trainer: lightning.Trainer) -> None:
    """Publish a finished run to every dashboard.

    A failed upload is logged as a warning, and does not change the outcome of the run.
    """
    if not trainer.loggers or not trainer.is_global_zero:
        return
    contents = list(run_contents(folder))
    for logger in trainer.loggers:
        upload = (
            logger.publish
            if isinstance(logger, Dashboard)
            else partial(_publish_plain, logger, trainer)
        )
        for description, name, content in contents:
            try:
                upload(name, content)
            except Exception as error:
                reason = hide(brief(error), secret_values(cfg))
                log.warning(
                    "%s did not take %s (%s); the run folder has it",
                    type(logger).__name__,
                    description,
                    reason,
                )


def _publish_plain(logger: Logger, trainer: lightning.Trainer, name: str, content: Content) -> None:
    """Publish content to one of Lightning's own loggers, if the logger supports it."""
    if isinstance(content, FinalMetrics):
        logger.log_metrics(content.values)
    elif name == "checkpoint":
        best = next(
            callback
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, FolderCheckpoint)
        )
        # The path is empty if nothing was trained.
        best.best_model_path = best.best_model_path or str(content)
        # `closing_loggers` has replaced the method of this instance.
        type(logger).after_save_checkpoint(logger, best)
    elif isinstance(content, Path) and isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(content))
