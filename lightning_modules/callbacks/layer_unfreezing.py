"""Trains a backbone from a layer on, at once or layer by layer as the epochs go by."""

from typing import Annotated

import lightning
from annotated_types import Interval
from torch import nn

from lightning_modules.base import Task
from lightning_modules.networks.freezing.layers import layer_numbers, parameters_from
from lightning_modules.networks.freezing.plan import FreezingError, FreezingPlan

ALL = "all"
_BACKBONE = "features.model"


class LayerUnfreezing(lightning.Callback):
    """Gives a task its freezing plan; the head trains from the start.

    A plan is a function of the epoch alone, see `FreezingPlan`: nothing is unfrozen by an event
    that a resumed run would miss.
    """

    def __init__(
        self,
        start_layer: str | None = None,
        schedule: dict[int, str | None] | None = None,
        lr_factors: dict[int, float] | None = None,
        layer_decay: Annotated[float, Interval(gt=0, le=1)] | None = None,
    ) -> None:
        """State the plan; exactly one of `start_layer` and `schedule`.

        Args:
            start_layer: This layer of the backbone and everything after it in parameter order
                trains. The name is the backbone's own: `blocks.11`, `features.28`,
                `encoder.layer.11`; `all` is everything.
            schedule: Epoch -> start layer from then on, None for the head alone, as it is before
                the first entry; each entry reaches at least as far as the one before ("gradual
                unfreezing", Howard & Ruder 2018, arXiv 1801.06146).
            lr_factors: Epoch of the schedule -> factor on the learning rate of what begins to train
                then.
            layer_decay: Each layer's learning rate is that of the layer above times this (Clark et
                al. 2020, arXiv 2003.10555).

        Raises:
            FreezingError: If that is no plan.
        """
        if (start_layer is None) == (schedule is None):
            msg = f"unfreezing needs start_layer or schedule, one of them; received {start_layer!r} and {schedule!r}"
            raise FreezingError(msg)
        given = schedule if schedule is not None else {0: start_layer}
        for epoch, layer in given.items():
            if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
                msg = f"unfreezing.schedule: received epoch {epoch!r}; a whole number from 0 is needed"
                raise FreezingError(msg)
            if layer is not None and not isinstance(layer, str):
                msg = f"unfreezing.schedule: received {layer!r} for epoch {epoch}; the name of a layer or null is needed"
                raise FreezingError(msg)
        if not given:
            msg = "unfreezing.schedule is empty; give epochs with their start layers, or leave the callback out"
            raise FreezingError(msg)
        self.lr_factors = dict(lr_factors or {})
        for stage, factor in self.lr_factors.items():
            if stage not in given:
                msg = f"unfreezing.lr_factors: received epoch {stage!r}; the schedule has {', '.join(map(str, sorted(given)))}"
                raise FreezingError(msg)
            if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
                msg = f"unfreezing.lr_factors: received {factor!r} for epoch {stage}; a number above 0 is needed"
                raise FreezingError(msg)
        self.stages: dict[int, str | None] = dict(sorted({0: None, **given}.items()))
        self.layer_decay = layer_decay

    def setup(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,
        stage: str,  # noqa: ARG002
    ) -> None:
        """Give the task its plan, before optimiser and DDP look at it."""
        if isinstance(pl_module, Task):
            self.give_plan(pl_module)

    def give_plan(self, task: Task) -> None:
        """Give a task its plan; a second time changes nothing.

        Raises:
            FreezingError: If the plan names what the backbone does not have, or the task has
                another one.
        """
        plan = self.plan(task.network)
        if task.freezing not in (plan, FreezingPlan()):
            msg = "model.freeze_backbone=true freezes all of the backbone for good; leave it out, or the unfreezing callback"
            raise FreezingError(msg)
        task.use_plan(plan)

    def plan(self, network: nn.Module) -> FreezingPlan:
        """The plan for a network whose backbone is `features.model`.

        Raises:
            FreezingError: If it names what the backbone does not have, or goes back on itself.
        """
        backbone = network.get_submodule(_BACKBONE)
        names = [name for name, _ in backbone.named_parameters()]
        starts: dict[str, int | None] = dict.fromkeys(names)
        reached = 0
        for epoch, layer in self.stages.items():
            training = (
                [] if layer is None else names if layer == ALL else parameters_from(backbone, layer)
            )
            if len(training) < reached:
                msg = f"unfreezing.schedule: epoch {epoch} starts at {layer}, behind what trains already; what trains goes on"
                raise FreezingError(msg)
            reached = len(training)
            for name in training:
                starts[name] = epoch if starts[name] is None else starts[name]
        depths = layer_numbers(backbone) if self.layer_decay is not None else {}
        deepest = max(depths.values(), default=0)
        groups = {
            f"{_BACKBONE}.{name}": self._group(starts[name], deepest - depths.get(name, deepest))
            for name in names
        }
        return FreezingPlan(
            {f"{_BACKBONE}.{name}": start for name, start in starts.items()}, groups, self.stages
        )

    def _group(self, start: int | None, below: int) -> tuple[str, float]:
        """What sets a parameter's group apart, and its factor; `below` counts the layers from the last one down."""
        several = len(self.stages) > 1
        if start is None:
            return "_frozen" if self.layer_decay is not None or several else "", 1.0
        suffix, factor = f"_epoch{start}" if several else "", self.lr_factors.get(start, 1.0)
        if self.layer_decay is None:
            return suffix, factor
        return f"{suffix}_below{below}", factor * self.layer_decay**below
