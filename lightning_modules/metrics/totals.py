"""What a stage adds up and what it comes to, whatever the task."""

import math
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
        metrics: Name -> value; None where a metric is undefined.
        count: Samples that the metrics rest on.
    """

    metrics: dict[str, float | None]
    count: int


class StageTotals(Metric):
    """The sums of one stage; torchmetrics puts them together over processes.

    Attributes:
        losses: Of each batch the sum of its losses, [1] float64.
    """

    full_state_update = False
    losses: list[Tensor] | Tensor

    def __init__(self) -> None:
        super().__init__()
        self.empty: dict[str, Tensor] = {}
        self.add_list("losses", (), SUM_DTYPE)

    def add_list(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Keep tensors [n, *shape] of each batch, which are put end to end."""
        self.add_state(name, [], "cat")
        self.empty[name] = torch.empty((0, *shape), dtype=dtype)

    def add_loss(self, mean: Tensor, count: Tensor | int) -> None:
        """Add a batch's loss, a mean over `count`."""
        self.losses.append((mean.to(SUM_DTYPE) * count).reshape(1))  # type: ignore[union-attr]

    def listed(self, name: str) -> Tensor:
        """What a list holds, end to end."""
        value: list[Tensor] | Tensor = getattr(self, name)
        if isinstance(value, Tensor):
            return value
        return torch.cat(value) if value else self.empty[name]

    @property
    def loss_sum(self) -> float:
        """Sum of the losses, rounded once: it does not depend on the order, and so not on the number of processes."""
        values = self.listed("losses").tolist()
        return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)

    def result_of_all(self) -> StageResult:
        """The result over all processes, which each of them gets."""
        sharing = torch.distributed.is_available() and torch.distributed.is_initialized()
        for (
            name,
            empty,
        ) in (
            self.empty.items()
        ):  # a process without a batch still has to say of which kind its nothing is
            if sharing and not len(getattr(self, name)):
                setattr(self, name, [empty.to(self.device)])
        with self.sync_context(should_sync=self._to_sync and sharing):
            return self.result()

    @abstractmethod
    def result(self) -> StageResult:
        """Every metric and what else is recorded, from the sums as they are, those of one process or of all."""

    def compute(self) -> dict[str, float | None]:
        """The metrics over all processes."""
        return self.result().metrics
