"""Partial and gradual unfreezing of a backbone: it trains from a given layer on."""

from typing import Annotated

import lightning
from annotated_types import Ge, Interval
from torch import nn

from lightning_modules.base import Task
from lightning_modules.networks.backbones.divided_encoder import DividedEncoder
from lightning_modules.networks.backbones.features import BACKBONE, FEATURES
from lightning_modules.networks.freezing.blocks import blocks_of
from lightning_modules.networks.freezing.layers import layer_numbers, parameters_from
from lightning_modules.networks.freezing.plan import FreezingError, FreezingPlan
from run_folders.signatures.checking import check_arguments

ALL = "all"


class LayerUnfreezing(lightning.Callback):
    """Sets the freezing plan of a task; the head trains from the start.

    The plan depends on the epoch alone, see `FreezingPlan`. A resumed run therefore trains the same
    layers as an uninterrupted one.
    """

    def __init__(
        self,
        start_layer: str | None = None,
        schedule: dict[int, str | None] | None = None,
        lr_factors: dict[int, float] | None = None,
        layer_decay: Annotated[float, Interval(gt=0, le=1)] | None = None,
        last_blocks: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        """Set the plan by exactly one of `start_layer`, `schedule` and `last_blocks`.

        Args:
            start_layer: The first layer of the backbone that trains, together with all layers after
                it in parameter order. The name is the backbone's own: `blocks.11`, `features.28`,
                `encoder.layer.11`; `all` trains the whole backbone.
            schedule: Epoch -> start layer from that epoch on; None trains the head alone, as before
                the first entry. Each entry must train at least the layers of the entry before
                ("gradual unfreezing", Howard & Ruder 2018, arXiv 1801.06146).
            lr_factors: Epoch of the schedule -> factor on the learning rate of the layers that are
                unfrozen in that epoch.
            layer_decay: Factor from each layer's learning rate to that of the layer below it (Clark
                et al. 2020, arXiv 2003.10555).
            last_blocks: Number of blocks at the end of the backbone that train; see
                `networks.freezing.blocks`.

        Raises:
            FreezingError: If the arguments do not form a plan.
        """
        check_arguments(LayerUnfreezing, locals())
        stated = {"start_layer": start_layer, "schedule": schedule, "last_blocks": last_blocks}
        if sum(value is not None for value in stated.values()) != 1:
            received = ", ".join(f"{name}={value!r}" for name, value in stated.items())
            msg = (
                f"unfreezing needs exactly one of start_layer, schedule and last_blocks; "
                f"received {received}"
            )
            raise FreezingError(msg)
        self.last_blocks = last_blocks
        given = schedule if schedule is not None else {0: start_layer}
        for epoch, layer in given.items():
            if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
                msg = (
                    f"unfreezing.schedule: received epoch {epoch!r}; "
                    f"a whole number from 0 is needed"
                )
                raise FreezingError(msg)
            if layer is not None and not isinstance(layer, str):
                msg = (
                    f"unfreezing.schedule: received {layer!r} for epoch {epoch}; "
                    f"the name of a layer or null is needed"
                )
                raise FreezingError(msg)
        if not given:
            msg = (
                "unfreezing.schedule is empty; "
                "set epochs with their start layers, or remove the callback"
            )
            raise FreezingError(msg)
        self.lr_factors = dict(lr_factors or {})
        for stage, factor in self.lr_factors.items():
            if stage not in given:
                epochs = ", ".join(map(str, sorted(given)))
                msg = f"unfreezing.lr_factors: received epoch {stage!r}; the schedule has {epochs}"
                raise FreezingError(msg)
            if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
                msg = (
                    f"unfreezing.lr_factors: received {factor!r} for epoch {stage}; "
                    f"a number above 0 is needed"
                )
                raise FreezingError(msg)
        self.stages: dict[int, str | None] = dict(sorted({0: None, **given}.items()))
        self.layer_decay = layer_decay

    def setup(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,
        stage: str,  # noqa: ARG002
    ) -> None:
        """Set the task's plan, before the optimizer and DDP read which parameters train."""
        if isinstance(pl_module, Task):
            self.set_plan(pl_module)

    def set_plan(self, task: Task) -> None:
        """Set a task's plan; repeated calls have no effect.

        Raises:
            FreezingError: If the plan names a layer that the backbone does not have, or the task
                already has a different plan.
        """
        plan = self.plan(task.network)
        if task.freezing not in map(task.with_new_parts, (plan, FreezingPlan())):
            msg = (
                "model.freeze_backbone=true freezes the whole backbone permanently; "
                "remove it, or remove the unfreezing callback"
            )
            raise FreezingError(msg)
        task.set_freezing_plan(plan)

    def plan(self, network: nn.Module) -> FreezingPlan:
        """Return the plan for a network whose backbone is `features.model`.

        Raises:
            FreezingError: If the plan names a layer that the backbone does not have, or freezes a
                layer again.
        """
        backbone = network.get_submodule(BACKBONE)
        names = [name for name, _ in backbone.named_parameters()]
        stages = {0: self._last_block(network)} if self.last_blocks else self.stages
        starts: dict[str, int | None] = dict.fromkeys(names)
        reached = 0
        for epoch, layer in stages.items():
            training = (
                [] if layer is None else names if layer == ALL else parameters_from(backbone, layer)
            )
            if len(training) < reached:
                msg = (
                    f"unfreezing.schedule: epoch {epoch} with start layer {layer} would freeze "
                    f"layers that already train; choose an earlier layer or remove the entry"
                )
                raise FreezingError(msg)
            reached = len(training)
            for name in training:
                starts[name] = epoch if starts[name] is None else starts[name]
        depths = layer_numbers(backbone) if self.layer_decay is not None else {}
        new = tuple(f"{name}." for name in getattr(network.features, "new_parts", ()))
        deepest = max((d for name, d in depths.items() if not name.startswith(new)), default=0)
        groups = {
            f"{BACKBONE}.{name}": self._group(starts[name], deepest - depths.get(name, deepest))
            for name in names
        }
        return FreezingPlan(
            {f"{BACKBONE}.{name}": start for name, start in starts.items()}, groups, stages
        )

    def _last_block(self, network: nn.Module) -> str:
        """Return the first layer of the last blocks.

        Raises:
            FreezingError: If the backbone has fewer blocks, or no layers that are known.
        """
        features = network.get_submodule(FEATURES)
        backbone = network.get_submodule(BACKBONE)
        blocks = (
            blocks_of(backbone, features.record()) if isinstance(features, DividedEncoder) else []
        )
        count = self.last_blocks or 0
        if count > len(blocks):
            msg = (
                f"unfreezing.last_blocks: received {count}; {type(backbone).__name__} has "
                f"{len(blocks)} blocks"
            )
            raise FreezingError(msg)
        return blocks[-count].layer

    def _group(self, start: int | None, below: int) -> tuple[str, float]:
        """Return the suffix and the learning-rate factor of a parameter's group.

        Args:
            start: First epoch in which the parameter trains; None for never.
            below: Number of layers after the parameter's layer, up to the last layer.
        """
        several = len(self.stages) > 1
        if start is None:
            return "_frozen" if self.layer_decay is not None or several else "", 1.0
        suffix, factor = f"_epoch{start}" if several else "", self.lr_factors.get(start, 1.0)
        if self.layer_decay is None:
            return suffix, factor
        return f"{suffix}_below{below}", factor * self.layer_decay**below
