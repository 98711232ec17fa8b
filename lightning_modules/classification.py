"""What the tasks of classification share: logits of samples, their probabilities, loss and counts."""

from typing import Any

from torch import Tensor

from lightning_modules.base import Task
from lightning_modules.losses.classification import class_probabilities, classification_loss
from lightning_modules.metrics.classification import ClassificationTotals, metric_names


class ClassificationTask(Task):
    """Base of the classifiers. Two classes give one logit and binary cross-entropy, more give cross-entropy."""

    @staticmethod
    def metric_names(num_classes: int) -> list[str]:
        """See `metrics.metric_names`."""
        return metric_names(num_classes)

    def new_totals(self, *, keep_samples: bool) -> ClassificationTotals:
        """Counts, and where samples are kept their probabilities."""
        return ClassificationTotals(self.num_classes, keep_samples=keep_samples)

    def forward(self, batch: Any) -> Tensor:  # noqa: ANN401 - each task has its batch type
        """Class probabilities [B, K]."""
        return class_probabilities(self.logits(batch))

    def logits(self, batch: Any) -> Tensor:  # noqa: ANN401 - each task has its batch type
        """What the network gives for a batch, [B, K]; one column for two classes."""
        logits: Tensor = self.network(batch)
        return logits

    def loss_and_probabilities(self, batch: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - each task has its batch type
        """Mean loss in nats, smoothed while training, and class probabilities [B, K]."""
        logits = self.logits(batch)
        smoothing = self.label_smoothing if self.training else 0.0
        return classification_loss(logits, batch["labels"], smoothing), class_probabilities(logits)

    def shared_step(self, batch: Any, totals: ClassificationTotals | None) -> Tensor:  # noqa: ANN401 - each task has its batch type
        """Mean loss of a batch."""
        loss, probabilities = self.loss_and_probabilities(batch)
        if totals is not None:
            totals.update(loss.detach(), probabilities.detach(), batch["labels"], batch["index"])
        return loss
