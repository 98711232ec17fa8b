"""The optimizer of a task: named groups of all parameters, the schedule, gradient clipping."""

from collections.abc import Mapping
from typing import Any

import lightning
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_modules.networks.freezing.plan import FreezingPlan
from lightning_modules.optim.groups import parameter_groups
from lightning_modules.optim.optimizers import (
    OptimizerFactory,
    clip_in_step,
    make_optimizer,
    supports_fused_clipping,
)
from lightning_modules.optim.schedules import (
    Schedule,
    lr_schedule,
    monitor_of,
    steps_per_epoch_of,
)


class OptimizedModule(lightning.LightningModule):
    """A LightningModule that sets up its optimizer from a freezing plan and a schedule.

    Attributes:
        network: The plain torch module.
        freezing: Which parameters train at which epoch.
        lrs: Child of the network -> peak learning rate.
        weight_decay: Weight decay of the weights.
        optimizer: Builds the optimizer from parameter groups.
        schedule: The learning-rate schedule.
    """

    network: nn.Module
    freezing: FreezingPlan
    lrs: Mapping[str, float]
    weight_decay: float
    optimizer: OptimizerFactory
    schedule: Schedule

    def new_optimizer(self) -> Optimizer:
        """Build the optimizer.

        Raises:
            OptimizerError: If its class rejects the parameter groups or its options.
        """
        groups = parameter_groups(self.network, self.lrs, self.weight_decay, self.freezing.group)
        return make_optimizer(self.optimizer, groups)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer, whose named groups hold all parameters, and the schedule.

        Frozen parameters have groups too.
        """
        optimizer = self.new_optimizer()
        total = int(self.trainer.estimated_stepping_batches)
        # The line above has done this only if the number of epochs is limited.
        self.trainer.fit_loop.setup_data()
        batches = int(self.trainer.num_training_batches)
        steps = steps_per_epoch_of(batches, self.trainer.accumulate_grad_batches)
        scheduler = lr_schedule(optimizer, self.schedule, total_steps=total, steps_per_epoch=steps)
        if not isinstance(scheduler, ReduceLROnPlateau):
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
            }
        # Step after the last batch of an epoch, which follows the validation. With
        # `interval="epoch"`, Lightning steps after the checkpoint is written, so a resumed run
        # would miss the step.
        plateau: Any = {
            "scheduler": scheduler,
            "interval": "step",
            "frequency": batches,
            "monitor": monitor_of(self.schedule),
        }
        return {"optimizer": optimizer, "lr_scheduler": plateau}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients; with FSDP, the norm covers the shards of all processes."""
        if gradient_clip_val and isinstance(self.trainer.strategy, FSDPStrategy):
            wrapped: Any = self.trainer.strategy.model
            wrapped.clip_grad_norm_(gradient_clip_val)
        elif (
            gradient_clip_val
            and gradient_clip_algorithm in (None, "norm")
            and supports_fused_clipping(optimizer)
        ):
            clip_in_step(optimizer, gradient_clip_val)
        else:
            optimizer.grad_scale = None  # type: ignore[attr-defined]  # set by an earlier `clip_in_step`
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
