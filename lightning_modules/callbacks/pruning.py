"""Pruning of unpromising trials of a hyperparameter search."""

from collections.abc import Callable

import lightning
from lightning.pytorch.callbacks import Checkpoint

from lightning_modules.base import Task
from run_folders.errors import UserError
from run_folders.kinds import metric_text


class PrunedRunError(UserError):
    """The search pruned this run. The run folder stays."""


class Pruning(Checkpoint):
    """Reports the monitored metric after each validated epoch and stops the run if it is pruned.

    It derives from `Checkpoint` so that Lightning calls it after the epoch's metrics are computed.
    As the last callback it is called after `History` has written them.
    """

    def __init__(self, monitor: str, report: Callable[[int, float], bool] | None) -> None:
        """Set the metric and the function that it is reported to.

        Args:
            monitor: Name of the metric, such as `val/acc`.
            report: Takes epoch and metric and returns whether to stop; None except on rank 0.
        """
        self.monitor, self.report = monitor, report

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Report the metric; raise `PrunedRunError` in every process if the run is pruned."""
        if not isinstance(pl_module, Task) or "val" not in pl_module.results:
            return
        metric = pl_module.results["val"].metrics[self.monitor.removeprefix("val/")]
        epoch = trainer.current_epoch
        prune = metric is not None and self.report is not None and self.report(epoch, metric)
        if trainer.strategy.broadcast(prune):
            msg = (
                f"pruned after epoch {epoch}: {self.monitor} {metric_text(metric, self.monitor)} "
                f"is worse than that of other trials at the same epoch"
            )
            raise PrunedRunError(msg)
