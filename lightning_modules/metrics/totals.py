"""Base classes of a stage's totals and of its result, for all tasks."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torchmetrics import Metric

# Apple's MPS has no float64.
SUM_DTYPE = torch.float32 if torch.backends.mps.is_available() else torch.float64


@dataclass(frozen=True)
class StageResult:
    """The result of a stage.

    Attributes:
        metrics: Name -> value; None if the metric is undefined.
        count: Number of samples that the metrics are computed from.
    """

    metrics: dict[str, float | None]
    count: int


def without_nan(result: StageResult) -> StageResult:
    """Return a result whose NaN and infinite metrics are None: they are not defined."""
    metrics = {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in result.metrics.items()
    }
    return replace(result, metrics=metrics)


class StageTotals(Metric):
    """The totals of one stage; torchmetrics combines them over processes.

    Attributes:
        losses: The sum of losses of each batch, [1] float64 (float32 with MPS).
    """

    full_state_update = False
    losses: list[Tensor] | Tensor

    def __init__(self) -> None:
        super().__init__()
        self.empty: dict[str, Tensor] = {}
        self.add_list("losses", (), SUM_DTYPE)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Self:
        """Move the states or convert them to another precision, but never to fewer digits."""

        def converted(state: Tensor) -> Tensor:
            new = fn(state)
            return state.to(new.device, torch.promote_types(new.dtype, state.dtype))

        super()._apply(converted, exclude_state)
        self.empty = {name: converted(values) for name, values in self.empty.items()}
        return self

    def add_list(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Add a state that collects a tensor [n, *shape] of each batch and concatenates them."""
        self.add_state(name, [], "cat")
        self.empty[name] = torch.empty((0, *shape), dtype=dtype)

    def add_to_list(self, name: str, value: Tensor) -> None:
        """Add a batch's tensor to a list state.

        A tensor from a worker would keep a shared-memory file open; its copy does not.
        """
        dtype = torch.promote_types(value.dtype, self.empty[name].dtype)
        getattr(self, name).append(value.to(dtype, copy=True))

    def add_loss(self, mean: Tensor, count: Tensor | int) -> None:
        """Add a batch's loss, given as the mean over `count` items."""
        self.losses.append((mean.to(SUM_DTYPE) * count).reshape(1))  # type: ignore[union-attr]

    def concatenated(self, name: str) -> Tensor:
        """Return the tensors of a list state, concatenated."""
        value: list[Tensor] | Tensor = getattr(self, name)
        if isinstance(value, Tensor):
            return value
        return torch.cat(value) if value else self.empty[name]

    def sorted_by_index(self, *names: str) -> tuple[Tensor, ...]:
        """Return the list state `index`, ascending, and other list states in the same order."""
        index = self.concatenated("index")
        order = torch.argsort(index)
        return index[order], *(self.concatenated(name)[order] for name in names)

    @property
    def loss_sum(self) -> float:
        """The sum of the losses, rounded once.

        It depends neither on the order of the batches nor on the number of processes.
        """
        values = self.concatenated("losses").tolist()
        return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)

    def global_result(self) -> StageResult:
        """Return the result over all processes; every process receives it."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        # To gather a list, each process needs a tensor of the right shape and dtype, even without
        # a batch.
        for name, empty in self.empty.items():
            if distributed and not len(getattr(self, name)):
                setattr(self, name, [empty.to(self.device)])
        with self.sync_context(should_sync=self._to_sync and distributed):
            return without_nan(self.result())

    @abstractmethod
    def result(self) -> StageResult:
        """Return the metrics and further records from the current totals.

        The totals are those of one process, or of all processes once they are synchronised.
        """

    def compute(self) -> dict[str, float | None]:
        """Return the metrics over all processes."""
        return self.result().metrics
