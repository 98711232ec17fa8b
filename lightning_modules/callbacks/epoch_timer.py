"""How long an epoch's training takes, apart from its validation."""

import time

import lightning
import torch


class EpochTimer(lightning.Callback):
    """Takes the time of each epoch, once the device has done what it was given.

    Attributes:
        seconds: Of the epoch so far, validation included.
        val_seconds: Of its validation.
    """

    def __init__(self) -> None:
        self.epoch_start = self.val_start = self.val_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Since the epoch began."""
        return _now() - self.epoch_start

    def on_train_epoch_start(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Start the clock."""
        self.epoch_start, self.val_seconds = _now(), 0.0

    def on_validation_start(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Stop the training clock."""
        self.val_start = _now()

    def on_validation_end(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Let the training clock go on."""
        self.val_seconds += _now() - self.val_start


def _now() -> float:
    """Seconds; work that was only queued counts to where it was queued."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
