"""What a stage adds up and what it comes to, whatever the task."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

# Apple's MPS has no float64.
SUM_DTYPE = torch.float32 if torch.backends.mps.is_available() else torch.float64


@dataclass(frozen=True)
class StageResult:
    """What a stage came to.

    Attributes:
        figures: Name -> value; None where a figure is undefined.
        count: Samples that the figures rest on.
    """

    figures: dict[str, float | None]
    count: int


class StageTotals(Metric):
    """The sums of one stage; torchmetrics adds them over processes.

    Attributes:
        loss_sum: Sum of the losses, float64.
    """

    full_state_update = False
    loss_sum: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros((), dtype=SUM_DTYPE), "sum")

    @abstractmethod
    def result(self) -> StageResult:
        """Every figure and what else is recorded, from the sums as they are, those of one process or of all."""

    def compute(self) -> dict[str, float | None]:
        """The figures over all processes."""
        return self.result().figures
