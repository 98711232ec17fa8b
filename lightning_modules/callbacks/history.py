"""The training history: one row of history.csv per epoch."""

import logging
from typing import Protocol

import lightning
from lightning.pytorch.callbacks import Checkpoint
from torch.optim import Optimizer

from lightning_modules.base import Task
from lightning_modules.callbacks.epoch_timer import EpochTimer
from run_folders.kinds import log_line

log = logging.getLogger(__name__)


class HistoryStore(Protocol):
    """Storage of the history's rows, such as a run folder."""

    def read_history(self) -> list[dict[str, str]]:
        """Return all rows."""

    def write_history(self, rows: list[dict[str, str]]) -> None:
        """Replace all rows."""


class History(Checkpoint):
    """Writes a row with the epoch's metrics, learning rates and times.

    Lightning calls `Checkpoint` callbacks after the task has computed the epoch's metrics, in the
    order of the list. Therefore this callback derives from `Checkpoint`. It comes before the
    callbacks that save checkpoints: every epoch with a checkpoint then has a row.
    """

    def __init__(self, store: HistoryStore, timer: EpochTimer) -> None:
        """Set the storage and the source of times.

        Args:
            store: Storage of the rows.
            timer: A callback of the same trainer, before this one.
        """
        self.store, self.timer = store, timer
        self.started = False  # whether a batch was trained, with the state of a checkpoint if any
        self.rows: list[dict[str, str]] = []
        self.lrs: list[float] = []

    def on_train_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Load the rows of earlier epochs, if the run is resumed."""
        self.rows = [
            row for row in self.store.read_history() if int(row["epoch"]) < trainer.current_epoch
        ]

    def on_train_batch_end(self, *_: object) -> None:
        """Note that a step with the restored state succeeded."""
        self.started = True

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002 - Lightning's signature
        pl_module: lightning.LightningModule,  # noqa: ARG002
        optimizer: Optimizer,
    ) -> None:
        """Record the step's learning rates.

        At the end of the epoch, the schedule has already set those of the next epoch.
        """
        self.lrs = [group["lr"] for group in optimizer.param_groups]

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write the row and log its main metrics."""
        if not isinstance(pl_module, Task) or not trainer.is_global_zero:
            return
        seconds = self.timer.seconds
        train_seconds = seconds - self.timer.val_seconds
        samples = pl_module.results["train"].count
        row: dict[str, object] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        for stage in ("train", "val"):
            if stage in pl_module.results:
                metrics = pl_module.results[stage].metrics
                row |= {
                    f"{stage}/{name}": "" if value is None else value
                    for name, value in metrics.items()
                }
                row[f"{stage}/n"] = pl_module.results[stage].count
        for group, lr in zip(trainer.optimizers[0].param_groups, self.lrs, strict=True):
            trains = any(parameter.requires_grad for parameter in group["params"])
            row[f"lr/{group['name']}"] = lr if trains else ""  # empty for a frozen group
        row |= {"seconds": round(seconds, 3), "train/seconds": round(train_seconds, 3)}
        row["train/samples_per_second"] = round(samples / train_seconds, 1)
        self.rows.append({key: str(value) for key, value in row.items()})
        self.store.write_history(self.rows)
        unlimited = trainer.max_epochs in (None, -1)
        epochs = "" if unlimited else f" of {trainer.max_epochs}"
        line = log_line(row, pl_module.kind)
        log.info("epoch %d%s: %s, %.1f s", trainer.current_epoch, epochs, line, seconds)
