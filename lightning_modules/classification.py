"""Base class of the classification tasks: logits, probabilities, loss and totals."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_modules.head_task import HeadTask
from lightning_modules.losses.classification import CrossEntropy, class_probabilities, num_outputs
from lightning_modules.metrics.classification import ClassificationTotals, metric_names
from run_folders.signatures.checking import ArgumentError


class ClassificationTask(HeadTask):
    """Base class of the classifiers: each sample has one of K classes.

    The loss gets logits [B, K] and labels [B] int64. With two classes and a loss whose attribute
    `single_logit` is true, it gets logits [B, 1]. Predictions are class probabilities [B, K].
    """

    kind: ClassVar[str] = "classification"

    def __init__(self, num_classes: int, **training: Any) -> None:  # noqa: ANN401 - the base's own arguments
        """Set the number of classes.

        Args:
            num_classes: K, two or more.
            training: Arguments of `Task`.

        Raises:
            ArgumentError: If there are fewer than two classes.
        """
        if num_classes < 2:  # noqa: PLR2004 - of a config, the datamodule says it with the names
            msg = (
                f"{type(self).__name__}: num_classes: received {num_classes}; at least 2 is needed"
            )
            raise ArgumentError(msg)
        self.num_classes = num_classes
        super().__init__(**training)

    @staticmethod
    def default_loss() -> CrossEntropy:
        """Return the cross-entropy."""
        return CrossEntropy()

    @property
    def outputs(self) -> int:
        """Number of logits of a sample."""
        return self.outputs_with(self.loss)

    def outputs_with(self, loss: nn.Module) -> int:
        """Return the number of logits of a sample if this loss is used."""
        return num_outputs(self.num_classes, loss)

    def example_labels(self, count: int) -> Tensor:
        """Return class 0 for each sample, [B] int64."""
        return torch.zeros(count, dtype=torch.int64)

    def label_fault(self, labels: Tensor) -> str:
        """Return why labels are not one class for each sample; empty if they are."""
        if labels.dtype == torch.int64 and labels.ndim == 1:
            return ""
        received = {1: "numbers", 2: "several labels", 3: "masks"}[labels.ndim]
        return (
            f"{type(self).__name__} needs one class for each sample, and the data has {received}; "
            f"choose a model for them"
        )

    @classmethod
    def metric_names(cls, settings: Mapping[str, Any]) -> list[str]:
        """Return the names of the metrics; see `metrics.classification.metric_names`."""
        num_classes = settings.get("num_classes")
        return metric_names(num_classes) if isinstance(num_classes, int) else []

    def new_totals(self, *, keep_samples: bool) -> ClassificationTotals:
        """Return totals of counts; with `keep_samples`, also each sample's probabilities."""
        return ClassificationTotals(self.num_classes, keep_samples=keep_samples)

    def predictions(self, logits: Tensor) -> Tensor:
        """Return class probabilities [B, K]."""
        return class_probabilities(logits)
