"""Tasks that predict one number for each sample."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor, nn

from lightning_modules.head_task import HeadTask
from lightning_modules.text_task import TextTask
from thaw_birds.kinds import REGRESSION
from thaw_birds.regression_metrics import RegressionTotals


class RegressionTask(HeadTask):
    """Base class of the regressors: the prediction is `offset + scale * output`.

    The loss gets predictions [B] and labels [B], both float32 and in the unit of the labels.
    """

    kind: ClassVar[str] = "regression"

    def __init__(
        self,
        offset: float = 0.0,
        scale: Annotated[float, Gt(0)] = 1.0,
        **training: Any,  # noqa: ANN401 - the base's own arguments
    ) -> None:
        """Set how an output of the head becomes a prediction.

        Args:
            offset: Prediction for an output of 0; the mean of the train labels is a good value.
            scale: Change of the prediction for a change of the output by 1; the standard deviation
                of the train labels is a good value.
            training: Arguments of `Task`.
        """
        self.offset, self.scale = offset, scale
        super().__init__(**training)

    @staticmethod
    def default_loss() -> nn.Module:
        """Return the mean squared error."""
        return nn.MSELoss()

    @property
    def outputs(self) -> int:
        """Number of outputs of a sample: one."""
        return 1

    def example_labels(self, count: int) -> Tensor:
        """Return the label 0 for each sample, [B] float32."""
        return torch.zeros(count)

    def loss_inputs(self, logits: Tensor) -> Tensor:
        """Return what the loss gets: the predictions [B]."""
        return self.predictions(logits)

    def label_fault(self, labels: Tensor) -> str:
        """Return why labels are not one number for each sample; empty if they are."""
        if labels.is_floating_point() and labels.ndim == 1:
            return ""
        received = {1: "classes", 2: "several labels", 3: "masks"}[labels.ndim]
        return (
            f"{type(self).__name__} needs one number for each sample, and the data has {received}; "
            f"choose data with numbers, such as data=weighed_notes"
        )

    @classmethod
    def metric_names(cls, settings: Mapping[str, Any]) -> list[str]:  # noqa: ARG003 - always the same
        """Return the names of the metrics; see `thaw_birds.kinds`."""
        return [metric.name for metric in REGRESSION]

    def new_totals(self, *, keep_samples: bool) -> RegressionTotals:
        """Return totals of sums, or of all samples with `keep_samples`."""
        return RegressionTotals(keep_samples=keep_samples)

    def predictions(self, logits: Tensor) -> Tensor:
        """Return the predictions [B] float32 from the outputs [B, 1]."""
        return self.offset + self.scale * logits.float()[:, 0]


class TextRegressor(TextTask, RegressionTask):
    """Any text encoder, frozen or fine-tuned; each text has one number."""
