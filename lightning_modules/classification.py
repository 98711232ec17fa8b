"""Base class of the classification tasks: logits, probabilities, loss and totals."""

from typing import Any

from torch import Tensor

from lightning_modules.base import Task
from lightning_modules.losses.classification import class_probabilities, classification_loss
from lightning_modules.metrics.classification import ClassificationTotals, metric_names


class ClassificationTask(Task):
    """Base class of the classifiers.

    Two classes use one logit and binary cross-entropy; more classes use cross-entropy.
    """

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
        """Return the mean loss in nats, label-smoothed while training, and probabilities [B, K]."""
        logits = self.logits(batch)
        smoothing = self.label_smoothing if self.training else 0.0
        return classification_loss(logits, batch["labels"], smoothing), class_probabilities(logits)

    def shared_step(self, batch: Any, totals: ClassificationTotals | None) -> Tensor:  # noqa: ANN401 - each task has its batch type
        """Return the mean loss of a batch and add the batch to the totals."""
        loss, probabilities = self.loss_and_probabilities(batch)
        if totals is not None:
            totals.update(loss.detach(), probabilities.detach(), batch["labels"], batch["index"])
        return loss
