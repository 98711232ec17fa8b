"""Timing of epochs, with separate times for training and validation."""

import time

import lightning
import torch


class EpochTimer(lightning.Callback):
    """Measures the time of each epoch; it waits for the device before it reads the clock.

    Attributes:
        seconds: Seconds since the epoch started, including validation.
        val_seconds: Seconds of the epoch's validation.
        steps: For each epoch, the mean seconds of a batch after the first one; of the first one if
            there is no other.
    """

    def __init__(self) -> None:
        self.epoch_start = self.val_start = self.val_seconds = 0.0
        self.steps: list[float] = []
        self._first_end = self._batches = 0.0

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
        self._batches = 0

    def on_train_batch_end(self, *_: object) -> None:
        """Note when the first batch ended, and how many there were."""
        self._batches += 1
        if self._batches == 1:
            self._first_end = _now()

    def on_train_epoch_end(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Add the mean seconds of a batch."""
        end = _now() - self.val_seconds
        alone = self._batches < 2  # noqa: PLR2004
        start = self.epoch_start if alone else self._first_end
        self.steps.append((end - start) / max(1, self._batches - (not alone)))

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
