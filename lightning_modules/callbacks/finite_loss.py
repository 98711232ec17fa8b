"""Stops a run whose loss is no longer a number, before the next checkpoint is written."""

from typing import Any

import lightning
import torch

from lightning_modules.losses import NonFiniteLossError


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
            sizes = batch.get("batch_sizes", [len(batch["index"])])  # of several taken together, this is the last one's loss
            number = batch_idx if len(sizes) == 1 else batch_idx * trainer.datamodule.steps_at_once + len(sizes) - 1  # type: ignore[attr-defined]
            raise NonFiniteLossError.of_batch(loss, trainer.current_epoch, number, batch["index"][-sizes[-1] :])
