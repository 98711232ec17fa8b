"""Tasks whose samples have any number of labels each, also none."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from lightning_modules.head_task import HeadTask
from lightning_modules.image_task import ImageTask
from lightning_modules.losses.classification import at_least_float32
from lightning_modules.losses.errors import LossError
from lightning_modules.metrics.multilabel import (
    DEFAULT_THRESHOLD,
    MultilabelResult,
    MultilabelTotals,
)
from lightning_modules.text_task import TextTask
from run_folders.metrics import MULTILABEL


class MultilabelTask(HeadTask):
    """Base class of the multi-label classifiers: one sigmoid for each of K labels.

    The loss gets logits [B, K] and labels [B, K] float32, 0 or 1. Predictions are probabilities
    [B, K]; a label is predicted if its probability is at least its threshold.

    Attributes:
        thresholds: [K] float32, a buffer that checkpoints contain. Each validation chooses those
            with the highest F1 of each label, so a checkpoint has the thresholds of its epoch.
    """

    kind: ClassVar[str] = "multilabel"
    thresholds: Tensor

    def __init__(self, num_classes: int, **training: Any) -> None:  # noqa: ANN401 - the base's own arguments
        """Set the number of labels.

        Args:
            num_classes: K.
            training: Arguments of `Task`.
        """
        self.num_classes = num_classes
        super().__init__(**training)
        self.register_buffer("thresholds", torch.full((num_classes,), DEFAULT_THRESHOLD))

    @staticmethod
    def default_loss() -> nn.Module:
        """Return the binary cross-entropy, the mean over samples and labels."""
        return nn.BCEWithLogitsLoss()

    @property
    def outputs(self) -> int:
        """Number of logits of a sample, K."""
        return self.num_classes

    def example_labels(self, count: int) -> Tensor:
        """Return samples without any label, [B, K] float32."""
        return torch.zeros(count, self.num_classes)

    def checked_loss(self, loss: nn.Module) -> nn.Module:
        """Return the loss, or raise `LossError` if the task cannot use it."""
        super().checked_loss(loss)
        unsure = torch.zeros(2, self.num_classes)
        with torch.no_grad():
            value = float(loss(unsure, torch.zeros_like(unsure)))
        if value == 0:  # cross-entropy reads labels as shares that sum to 1
            msg = (
                f"model.loss: {type(loss).__name__} is 0 for logits of 0 and samples without "
                f"labels, so it is no loss of several sigmoids; set loss=binary_cross_entropy"
            )
            raise LossError(msg)
        return loss

    def label_fault(self, labels: Tensor) -> str:
        """Return why labels are not K values of 0 or 1 for each sample; empty if they are."""
        if labels.ndim == 2 and labels.shape[1] == self.num_classes:  # noqa: PLR2004
            return ""
        return (
            f"{type(self).__name__} needs several labels for each sample, and the data has one; "
            f"set data.label_column to a list of 0/1 columns, or data.label_separator"
        )

    @classmethod
    def metric_names(cls, settings: Mapping[str, Any]) -> list[str]:  # noqa: ARG003 - always the same
        """Return the names of the metrics; see `metrics.multilabel`."""
        return [metric.name for metric in MULTILABEL]

    def new_totals(self, *, keep_samples: bool) -> MultilabelTotals:
        """Return totals of counts, or of all samples with `keep_samples`."""
        return MultilabelTotals(self.num_classes, keep_samples=keep_samples)

    def predictions(self, logits: Tensor) -> Tensor:
        """Return the probability of each label [B, K] float32."""
        # float32 in every precision, like the thresholds that they are compared with.
        return torch.sigmoid(at_least_float32(logits)).float()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:  # noqa: ANN401, FBT001, FBT002 - torch's signature
        """Move the module or convert it to another precision; thresholds stay float32."""
        before = getattr(self, "thresholds", None)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before is not None:
            self.thresholds = before.to(self.thresholds.device)
        return self

    def on_validation_epoch_start(self) -> None:
        """Reset the totals. Thresholds are chosen only while training."""
        super().on_validation_epoch_start()
        fits = self.trainer.state.fn == TrainerFn.FITTING
        self._set_thresholds("val", None if fits else self.thresholds)

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics and keep the thresholds that were chosen."""
        super().on_validation_epoch_end()
        result = self.results["val"]
        assert isinstance(result, MultilabelResult)  # noqa: S101 - tells the type checker
        self.thresholds.copy_(result.thresholds)

    def on_test_epoch_start(self) -> None:
        """Reset the totals; they use the thresholds chosen on validation."""
        super().on_test_epoch_start()
        self._set_thresholds("test", self.thresholds)

    def _set_thresholds(self, stage: str, thresholds: Tensor | None) -> None:
        totals = self.totals[f"{stage}_totals"]
        assert isinstance(totals, MultilabelTotals)  # noqa: S101 - tells the type checker
        totals.thresholds = thresholds

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the thresholds of this epoch.

        A callback that averages weights saves a state of its own, with older thresholds.
        """
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"]["thresholds"] = self.thresholds.clone()


class MultilabelTextClassifier(TextTask, MultilabelTask):
    """Any text encoder, frozen or fine-tuned; each text has any number of labels."""


class MultilabelImageClassifier(ImageTask, MultilabelTask):
    """Any timm backbone, wholly or partly frozen; each image has any number of labels."""
