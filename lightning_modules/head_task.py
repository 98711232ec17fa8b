"""Base class of the tasks whose head returns one row of outputs for each sample."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.base import Task
from lightning_modules.losses.classification import at_least_float32
from lightning_modules.losses.errors import LossError, try_loss
from lightning_modules.losses.segmentation import SegmentationLoss
from lightning_modules.networks.heads.classification import HeadError


class HeadTask(Task):
    """Base class of the tasks with a network `head(features(batch))`.

    A subclass states the kind of task: the number of outputs, what the outputs mean, the loss and
    the metrics. `TextTask` and `ImageTask` build the network for texts and for images. A concrete
    task derives from one of each, for example `TextClassifier(TextTask, ClassificationTask)`.
    """

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of outputs of the head for each sample, K."""

    @abstractmethod
    def example_labels(self, count: int) -> Tensor:
        """Return labels of a batch of `count` samples, to try the loss with before training."""

    @abstractmethod
    def predictions(self, logits: Tensor) -> Tensor:
        """Return what the task predicts, [B, ...], from the head's outputs [B, K].

        They are float32, or float64 with `trainer.precision=64-true`.
        """

    def loss_inputs(self, logits: Tensor) -> Tensor:
        """Return what the loss gets besides the labels: the outputs [B, K].

        They are float32, or float64 with `trainer.precision=64-true`.
        """
        return at_least_float32(logits)

    def checked_loss(self, loss: nn.Module) -> nn.Module:
        """Return the loss, or raise `LossError` if the task cannot use it."""
        if isinstance(loss, SegmentationLoss):
            default = type(self.default_loss()).__name__
            msg = (
                f"model.loss: {type(loss).__name__} is for segmentation; choose a loss for this "
                f"task, such as {default}"
            )
            raise LossError(msg)
        count = self.outputs_with(loss) + 1  # a loss that broadcasts labels over outputs fails
        logits = torch.zeros(count, self.outputs_with(loss))
        try_loss(loss, self.loss_inputs(logits), self.example_labels(count))
        return super().checked_loss(loss)

    def outputs_with(self, loss: nn.Module) -> int:  # noqa: ARG002 - for subclasses
        """Return the number of outputs if this loss is used."""
        return self.outputs

    def metrics_on(self, labels: Tensor) -> dict[str, float | None]:
        """Return the metrics of equal predictions for these labels; undefined ones are None."""
        totals: Any = self.new_totals(keep_samples=True)
        predictions = self.predictions(torch.zeros(len(labels), self.outputs))
        totals.update(torch.zeros(()), predictions, labels, torch.arange(len(labels)))
        metrics: dict[str, float | None] = totals.result().metrics
        return metrics

    def forward(self, batch: Any) -> Tensor:  # noqa: ANN401 - each input has its batch type
        """Return the predictions for a batch."""
        return self.predictions(self.logits(batch))

    def logits(self, batch: Any) -> Tensor:  # noqa: ANN401 - each input has its batch type
        """Return the outputs of the head for a batch, [B, K]."""
        logits: Tensor = self.network(batch)
        return logits

    def logits_and_auxiliary_loss(self, batch: Any) -> tuple[Tensor, Tensor | None]:  # noqa: ANN401 - each input has its batch type
        """Return the outputs of the head, [B, K], and a loss besides that of the labels, if any."""
        return self.logits(batch), None

    def shared_step(self, batch: Any, totals: Any) -> Tensor:  # noqa: ANN401 - each input has its batch type
        """Return the mean loss of a batch and add the batch to the totals.

        An auxiliary loss is added to the result. The metrics exclude it.
        """
        logits, auxiliary = self.logits_and_auxiliary_loss(batch)
        loss, predictions = self._measured(logits, batch)
        if totals is not None:
            totals.update(loss.detach(), predictions.detach(), batch["labels"], batch["index"])
        return loss if auxiliary is None else loss + auxiliary

    def loss_and_predictions(self, batch: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - each input has its batch type
        """Return the mean loss of `loss_inputs` and labels, and the predictions.

        Raises:
            HeadError: If the head returned another number of outputs.
        """
        return self._measured(self.logits(batch), batch)

    def _measured(self, logits: Tensor, batch: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - each input has its batch type
        """Return the mean loss and the predictions of logits [B, K]."""
        if logits.shape[1:] != (self.outputs,):
            msg = (
                f"model.head: {type(self.network.head).__name__} returned logits of shape "
                f"{[*logits.shape]}; [{len(logits)}, {self.outputs}] is needed"
            )
            raise HeadError(msg)
        loss: Tensor = self.loss(self.loss_inputs(logits), batch["labels"])
        return loss, self.predictions(logits)
