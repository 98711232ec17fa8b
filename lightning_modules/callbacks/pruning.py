"""Ends a trial of a search that is no good."""

from collections.abc import Callable

import lightning
from lightning.pytorch.callbacks import Checkpoint

from lightning_modules.base import Task
from run_folders.errors import UserError


class PrunedRunError(UserError):
    """The search gave this run up. The run's record stands."""


class Pruning(Checkpoint):
    """Reports the monitored metric after each epoch that was validated, and stops the run where it is told to.

    A kind of checkpoint to Lightning, so that it acts when the epoch's metrics are computed and,
    being the last of the callbacks, when they are on record.
    """

    def __init__(self, monitor: str, report: Callable[[int, float], bool] | None) -> None:
        """State whom to ask.

        Args:
            monitor: The metric, as `val/acc`.
            report: Takes epoch and metric and says whether to stop; only the first process has one.
        """
        self.monitor, self.report = monitor, report

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Report, and raise `PrunedRunError` in every process where the run is to stop."""
        if not isinstance(pl_module, Task) or "val" not in pl_module.results:
            return
        metric = pl_module.results["val"].metrics[self.monitor.removeprefix("val/")]
        epoch = trainer.current_epoch
        prune = metric is not None and self.report is not None and self.report(epoch, metric)
        if trainer.strategy.broadcast(prune):
            msg = f"pruned after epoch {epoch}: {self.monitor} {metric:.4f} is behind what other trials had by then"
            raise PrunedRunError(msg)
