"""A callback that logs the norm of the gradients."""

import logging

import lightning
import torch
from torch.optim import Optimizer

log = logging.getLogger(__name__)


class GradientNorm(lightning.Callback):
    """Logs the mean norm of the gradients of each epoch."""

    def __init__(self) -> None:
        """Start without any step."""
        self.norms: list[float] = []

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002 - Lightning's signature
        pl_module: lightning.LightningModule,
        optimizer: Optimizer,  # noqa: ARG002 - Lightning's signature
    ) -> None:
        """Compute the norm over all gradients, before they are clipped."""
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    def on_train_epoch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Log the mean and start anew."""
        mean = sum(self.norms) / max(1, len(self.norms))
        log.info("epoch %d: mean gradient norm %.3f", trainer.current_epoch, mean)
        self.norms.clear()
