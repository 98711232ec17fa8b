"""Stops a run whose loss is no longer a number, before the next checkpoint is written."""

from typing import Any

import lightning
import torch

from lightning_modules.losses.classification import NonFiniteLossError


class FiniteLoss(lightning.Callback):
    """Looks at the training loss of every step on the CPU, and of every n-th elsewhere: looking makes a GPU wait."""

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Raise `NonFiniteLossError` for a NaN or infinite loss."""
        if pl_module.device.type != "cpu" and (batch_idx + 1) % self.every_n_steps:
            return
        loss = outputs["loss"]
        if not torch.isfinite(loss):
            rows = ", ".join(str(int(i)) for i in batch["index"][:8])
            msg = (
                f"the training loss is {float(loss)} in epoch {trainer.current_epoch}, batch {batch_idx} (index {rows}, ...); "
                f"lower model.lr and model.backbone_lr, set trainer.gradient_clip_val, or train with trainer.precision=32-true"
            )
            raise NonFiniteLossError(msg)
