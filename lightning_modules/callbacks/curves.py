"""Curves for the loggers: values of single steps, and the history's row of each epoch."""

import logging
import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor

from lightning_modules.callbacks.history import History
from run_folders.errors import brief

log = logging.getLogger(__name__)


class Curves(Checkpoint):
    """Logs each epoch's row of the history, and one step every `trainer.log_every_n_steps` steps.

    A logged step has `step/loss`, `step/grad_norm` (before clipping), `step/lr/<group>`, and
    `step/samples_per_second` since the last logged step.
    If a logger fails, one warning is logged, the logger receives no more curves, and training
    continues.

    It derives from `Checkpoint` for the same reason as `History`, and must come after it in the
    list of callbacks.
    """

    def __init__(self, history: History) -> None:
        """Set the history whose rows are logged.

        Args:
            history: A callback of the same trainer, before this one.
        """
        self.history = history
        self.broken: set[int] = set()
        self.norm: Tensor | None = None
        self.lrs: dict[str, float] = {}
        self._reset_throughput()

    def _reset_throughput(self) -> None:
        self.samples, self.since = 0, time.perf_counter()

    def on_train_epoch_start(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Restart the measurement of samples per second."""
        self._reset_throughput()

    def on_validation_end(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Restart the measurement of samples per second, so that it excludes the validation."""
        self._reset_throughput()

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Record the gradient norm before clipping, and the step's learning rates."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every < 1 or trainer.global_step % every:  # 0 switches the logging of steps off
            return
        self.norm = gradient_norm(pl_module, trainer)
        groups = [
            group
            for group in optimizer.param_groups
            if any(p.requires_grad for p in group["params"])
        ]
        self.lrs = {f"step/lr/{group['name']}": group["lr"] for group in groups}

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,  # noqa: ARG002 - Lightning's signature
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Log the step if its gradient norm was recorded."""
        self.samples += len(batch["index"]) * trainer.world_size
        if self.norm is None:
            return
        # `float` waits for the device, so the time is read after it.
        values = {
            "step/loss": float(outputs["loss"]),
            "step/grad_norm": float(self.norm),
            **self.lrs,
        }
        seconds = max(time.perf_counter() - self.since, 1e-9)
        values["step/samples_per_second"] = self.samples / seconds
        self.norm = None
        self._log(trainer, values, trainer.global_step)
        self._reset_throughput()

    def on_train_epoch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Log the epoch's row."""
        if self.history.rows:
            row = self.history.rows[-1]
            values = {key: float(value) for key, value in row.items() if value and key != "step"}
            self._log(trainer, {**values, "epoch": int(row["epoch"])}, trainer.global_step)

    def _log(self, trainer: lightning.Trainer, values: dict[str, float], step: int) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if id(logger) in self.broken:
                continue
            try:
                logger.log_metrics(values, step)
            except Exception as error:
                self.broken.add(id(logger))
                log.warning(
                    "%s failed (%s) and receives no more curves; history.csv has all of them",
                    type(logger).__name__,
                    brief(error),
                )


def gradient_norm(module: lightning.LightningModule, trainer: lightning.Trainer) -> Tensor:
    """Return the Euclidean norm over all gradients, a scalar; with FSDP, over all shards."""
    norm = torch.nn.utils.get_total_norm(
        [p.grad for p in module.parameters() if p.grad is not None]
    )
    if hasattr(norm, "full_tensor"):
        norm = norm.full_tensor()
    elif isinstance(trainer.strategy, FSDPStrategy):
        norm = trainer.strategy.reduce(norm.square(), reduce_op="sum").sqrt()
    return norm
