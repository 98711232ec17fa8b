"""Curves for the dashboards: of steps while an epoch goes on, of epochs as the history has them."""

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
    """Logs the history's row of each epoch and, every `trainer.log_every_n_steps` steps, what the step was like.

    Of a step: `step/loss`, `step/grad_norm` before clipping, `step/lr/<group>`,
    `step/samples_per_second` since the last one.
    A dashboard that fails is told once and then left alone: training is worth more than its curves.

    A kind of checkpoint to Lightning for the same reason as `History`, behind which it has to
    stand.
    """

    def __init__(self, history: History) -> None:
        """State whose rows are logged.

        Args:
            history: A callback of the same trainer, before this one.
        """
        self.history = history
        self.broken: set[int] = set()
        self.norm: Tensor | None = None
        self.lrs: dict[str, float] = {}
        self._start_counting()

    def _start_counting(self) -> None:
        self.samples, self.since = 0, time.perf_counter()

    def on_train_epoch_start(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Count samples from here."""
        self._start_counting()

    def on_validation_end(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Count samples from here: a validation trains nothing."""
        self._start_counting()

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Take the norm of the gradients before they are clipped, and the learning rates before they move on."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every < 1 or trainer.global_step % every:  # 0 asks for no steps at all
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
        """Log the step whose norm was taken."""
        self.samples += len(batch["index"]) * trainer.world_size
        if self.norm is None:
            return
        values = {
            "step/loss": float(outputs["loss"]),
            "step/grad_norm": float(self.norm),
            **self.lrs,
        }  # waits for the device
        values["step/samples_per_second"] = self.samples / max(
            time.perf_counter() - self.since, 1e-9
        )
        self.norm = None
        self._log(trainer, values, trainer.global_step)
        self._start_counting()

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
                reason = brief(error)
                log.warning(
                    "%s takes no more curves (%s); history.csv has them",
                    type(logger).__name__,
                    reason,
                )


def gradient_norm(module: lightning.LightningModule, trainer: lightning.Trainer) -> Tensor:
    """Euclidean norm of all gradients together, a scalar; of gradients that processes share out, of all parts."""
    norm = torch.nn.utils.get_total_norm(
        [p.grad for p in module.parameters() if p.grad is not None]
    )
    if hasattr(norm, "full_tensor"):
        norm = norm.full_tensor()
    elif isinstance(trainer.strategy, FSDPStrategy):
        norm = trainer.strategy.reduce(norm.square(), reduce_op="sum").sqrt()
    return norm
