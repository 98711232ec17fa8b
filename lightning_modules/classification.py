"""Base class of the classification tasks: logits, probabilities, loss and totals."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.base import Task
from lightning_modules.losses.classification import CrossEntropy, class_probabilities, num_outputs
from lightning_modules.losses.errors import LossError, try_loss
from lightning_modules.losses.segmentation import SegmentationLoss
from lightning_modules.metrics.classification import ClassificationTotals, metric_names
from lightning_modules.networks.heads.classification import HeadError


class ClassificationTask(Task):
    """Base class of the classifiers.

    The loss gets logits [B, K] and labels [B] int64. With two classes and a loss whose attribute
    `single_logit` is true, it gets logits [B, 1].
    """

    @staticmethod
    def default_loss() -> CrossEntropy:
        """Return the cross-entropy."""
        return CrossEntropy()

    @property
    def outputs(self) -> int:
        """Number of logits of a sample."""
        return num_outputs(self.num_classes, self.loss)

    def checked_loss(self, loss: nn.Module) -> nn.Module:
        """Return the loss, or raise `LossError` if the task cannot use it."""
        if isinstance(loss, SegmentationLoss):
            msg = f"model.loss: {type(loss).__name__} is for segmentation; set loss=cross_entropy"
            raise LossError(msg)
        outputs = num_outputs(self.num_classes, loss)
        count = self.num_classes + 1  # a loss that broadcasts labels over classes fails
        try_loss(loss, torch.zeros(count, outputs), torch.zeros(count, dtype=torch.int64))
        return super().checked_loss(loss)

    @staticmethod
    def metric_names(num_classes: int) -> list[str]:
        """Return the names of the metrics; see `metrics.classification.metric_names`."""
        return metric_names(num_classes)

    def new_totals(self, *, keep_samples: bool) -> ClassificationTotals:
        """Return totals of counts; with `keep_samples`, also each sample's probabilities."""
        return ClassificationTotals(self.num_classes, keep_samples=keep_samples)

    def forward(self, batch: Any) -> Tensor:  # noqa: ANN401 - each task has its batch type
        """Return class probabilities [B, K]."""
        return class_probabilities(self.logits(batch))

    def logits(self, batch: Any) -> Tensor:  # noqa: ANN401 - each task has its batch type
        """Return the network's logits for a batch, [B, K]; [B, 1] for two classes."""
        logits: Tensor = self.network(batch)
        return logits

    def loss_and_probabilities(self, batch: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - each task has its batch type
        """Return the mean loss, and probabilities [B, K]. The loss gets logits in float32.

        Raises:
            HeadError: If the head returned another number of logits.
        """
        logits = self.logits(batch)
        if logits.shape[1:] != (self.outputs,):
            msg = (
                f"model.head: {type(self.network.head).__name__} returned logits of shape "
                f"{[*logits.shape]}; [{len(logits)}, {self.outputs}] is needed"
            )
            raise HeadError(msg)
        return self.loss(logits.float(), batch["labels"]), class_probabilities(logits)

    def shared_step(self, batch: Any, totals: ClassificationTotals | None) -> Tensor:  # noqa: ANN401 - each task has its batch type
        """Return the mean loss of a batch and add the batch to the totals."""
        loss, probabilities = self.loss_and_probabilities(batch)
        if totals is not None:
            totals.update(loss.detach(), probabilities.detach(), batch["labels"], batch["index"])
        return loss
