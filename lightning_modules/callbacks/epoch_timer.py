"""Timing of epochs, with separate times for training and validation."""

import time

import lightning
import torch


class EpochTimer(lightning.Callback):
    """Measures the time of each epoch; it waits for the device before it reads the clock.

    Attributes:
        seconds: Seconds since the epoch started, including validation.
        val_seconds: Seconds of the epoch's validation.
    """

    def __init__(self) -> None:
        self.epoch_start = self.val_start = self.val_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the epoch started, including validation."""
        return _now() - self.epoch_start

    def on_train_epoch_start(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Start the clock of the epoch."""
        self.epoch_start, self.val_seconds = _now(), 0.0

    def on_validation_start(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Start the clock of the validation."""
        self.val_start = _now()

    def on_validation_end(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Add the time of this validation."""
        self.val_seconds += _now() - self.val_start


def _now() -> float:
    """Return the time in seconds, after all work queued on the device has finished."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
