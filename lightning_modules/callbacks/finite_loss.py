"""Check for NaN and infinite losses, so that a run stops before it writes the next checkpoint."""

from typing import Any

import lightning
import torch

from lightning_modules.losses.errors import NonFiniteLossError


class FiniteLoss(lightning.Callback):
    """Checks the training loss: on the CPU at every step, elsewhere at every n-th step.

    On a GPU, reading the loss forces a synchronisation.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        """Set how often the loss is checked.

        Args:
            every_n_steps: Interval in steps, used on devices other than the CPU.
        """
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
                f"the training loss is {float(loss)} in epoch {trainer.current_epoch}, "
                f"batch {batch_idx} (index {rows}, ...); lower model.lr and model.backbone_lr, "
                f"set trainer.gradient_clip_val, or train with trainer.precision=32-true"
            )
            raise NonFiniteLossError(msg)
