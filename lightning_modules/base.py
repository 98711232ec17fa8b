"""The skeleton of every task: one step for train, val and test; optimiser; freezing; metrics."""

import gc
import json
import math
from abc import abstractmethod
from typing import Annotated, Any

import lightning
import torch
from annotated_types import Ge, Interval
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_modules.losses.classification import NonFiniteLossError
from lightning_modules.metrics.totals import StageResult, StageTotals
from lightning_modules.networks.freezing.plan import FreezingPlan, apply_plan, keep_frozen_in_eval
from lightning_modules.optim.optim import (
    OptimizerName,
    Schedule,
    ScheduleName,
    clip_in_step,
    clips_itself,
    lr_schedule,
    make_optimizer,
    parameter_groups,
    steps_in,
)

STAGES = ("train", "val", "test")


class Task(lightning.LightningModule):
    """Base of all tasks. A subclass builds `network`, with the children `features` and `head`, and counts what it gives.

    Attributes:
        network: The plain torch module.
        freezing: Which parameters train at which epoch.
        results: Stage -> what it came to last.
    """

    network: nn.Module
    freezing: FreezingPlan

    def __init__(
        self,
        num_classes: int,
        lr: Annotated[float, Ge(0)] = 1e-3,
        backbone_lr: Annotated[float, Ge(0)] = 2e-5,
        weight_decay: Annotated[float, Ge(0)] = 0.01,
        optimizer: OptimizerName = "adamw",
        momentum: Annotated[float, Interval(ge=0, le=0.999)] = 0.9,
        label_smoothing: Annotated[float, Interval(ge=0, le=0.999)] = 0.0,
        schedule: ScheduleName = "linear",
        warmup: Annotated[float, Interval(ge=0, le=1)] = 0.1,
        decay: Annotated[float, Interval(ge=0, le=1)] = 0.9,
        min_lr: Annotated[float, Ge(0)] = 1e-7,
        patience: Annotated[int, Ge(0)] = 2,
        monitor: str = "val/acc",
        mode: str = "max",
    ) -> None:
        """State how every task is trained.

        Args:
            num_classes: K.
            lr: Peak learning rate of the head.
            backbone_lr: Peak learning rate of the backbone.
            weight_decay: Of weights; biases and norms have none.
            optimizer: `adamw`, which without weight decay is Adam, or `sgd`.
            momentum: Of `sgd`, Nesterov's, 0..1.
            label_smoothing: Share of the label that is spread over all classes while training,
                0..1.
            schedule: See `Schedule`, as for the rest.
            warmup: Fraction of all steps, 0..1.
            decay: Factor on the learning rate, 0..1.
            min_lr: What a decaying learning rate does not fall below.
            patience: Epochs that `plateau` waits for.
            monitor: The metric that `plateau` looks at.
            mode: Whether min or max of it is better.
        """
        super().__init__()
        self.num_classes = num_classes
        self.lrs = {"features": backbone_lr, "head": lr}
        self.weight_decay, self.optimizer_name, self.momentum = weight_decay, optimizer, momentum
        self.label_smoothing = label_smoothing
        self.schedule = Schedule(schedule, warmup, decay, min_lr, patience, monitor, mode)
        self.results: dict[str, StageResult] = {}
        self.totals = nn.ModuleDict(
            {f"{stage}_totals": self.new_totals(keep_samples=stage != "train") for stage in STAGES}
        )

    @staticmethod
    @abstractmethod
    def metric_names(num_classes: int) -> list[str]:
        """The metrics that a stage comes to, for checking a monitor before anything runs."""

    @abstractmethod
    def new_totals(self, *, keep_samples: bool) -> StageTotals:
        """What adds up a stage; `keep_samples` where something is to be known of each sample."""

    @abstractmethod
    def shared_step(self, batch: Any, totals: Any) -> Tensor:  # noqa: ANN401 - each task has its own
        """The step of train, val and test: add a batch to the totals and give the loss to be minimised, a scalar.

        Without totals the batch counts nowhere: it is one that a process repeats to keep step with
            the others.
        """

    def loss_count(self, batch: Any) -> Tensor:  # noqa: ANN401 - each task has its own
        """What a batch's loss is a mean over: a scalar, the number of its samples."""
        return torch.tensor(len(batch["index"]), device=self.device)

    def uninitialized(self) -> str:
        """What of the network has random weights before any training, for a person; empty where nothing has."""
        return "the head"

    def use_plan(self, plan: FreezingPlan) -> None:
        """Take a freezing plan and apply its first epoch.

        Raises:
            FreezingError: If it names what the network does not have.
        """
        plan.check(self.network)
        self.freezing = plan
        apply_plan(self.network, plan, epoch=0)

    def train(self, mode: bool = True) -> "Task":  # noqa: FBT001, FBT002 - torch's own signature
        """Set the mode; what is frozen stays in eval mode."""
        super().train(mode)
        if hasattr(self, "network"):
            keep_frozen_in_eval(self.network)
        return self

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401 - Lightning's signature
        """Loss of a training batch; of a process's share of it so weighted that the mean over processes is the batch's."""
        totals = self._totals_of("train", batch_idx)
        loss = self.shared_step(batch, totals)
        if not _several_processes():
            return loss
        own = self.loss_count(batch) if totals is not None else torch.zeros((), device=self.device)
        own = own.to(torch.float32)
        total = own.clone()
        torch.distributed.all_reduce(total)
        return loss * (own * torch.distributed.get_world_size() / total.clamp(min=1))

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401 - Lightning's signature
        """Loss of a validation batch."""
        return self.shared_step(batch, self._totals_of("val", batch_idx))

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401 - Lightning's signature
        """Loss of a test batch."""
        return self.shared_step(batch, self._totals_of("test", batch_idx))

    def _totals_of(self, stage: str, batch_idx: int) -> StageTotals | None:
        """Where a batch counts; None where its sampler says that it is repeated."""
        loaders = {
            "train": "train_dataloader",
            "val": "val_dataloaders",
            "test": "test_dataloaders",
        }
        sampler: Any = getattr(getattr(self.trainer, loaders[stage], None), "batch_sampler", None)
        return (
            self._totals(stage)
            if not hasattr(sampler, "counted") or sampler.counted(batch_idx)
            else None
        )

    def _totals(self, stage: str) -> StageTotals:
        totals = self.totals[f"{stage}_totals"]
        assert isinstance(totals, StageTotals)  # noqa: S101 - tells the type checker
        return totals

    def on_train_epoch_start(self) -> None:
        """Bring freezing to this epoch and start counting from nothing."""
        if apply_plan(self.network, self.freezing, self.current_epoch):
            self.train()  # what begins to train leaves eval mode; Lightning keeps the modes it finds
            self._share_gradients_anew()
        self._totals("train").reset()
        self.results.clear()

    def _share_gradients_anew(self) -> None:
        """Wrap the model again where it is wrapped: DDP shares the gradients of what was trainable when it was wrapped."""
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy) and isinstance(
            strategy.model, DistributedDataParallel
        ):
            strategy.model = self
            gc.collect()  # the old wrapper takes its hooks with it
            strategy.configure_ddp()

    def on_validation_epoch_start(self) -> None:
        """Start counting from nothing."""
        self._totals("val").reset()

    def on_test_epoch_start(self) -> None:
        """Start counting from nothing."""
        self._totals("test").reset()

    def on_train_epoch_end(self) -> None:
        """Compute the epoch's metrics."""
        self._finish("train")

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics."""
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Compute the metrics."""
        self._finish("test")

    def _finish(self, stage: str) -> None:
        totals = self._totals(stage)
        if not math.isfinite(totals.loss_sum):
            msg = (
                f"the {stage} loss of epoch {self.current_epoch} is {totals.loss_sum}; "
                f"lower model.lr and model.backbone_lr, or set trainer.gradient_clip_val"
            )
            raise NonFiniteLossError(msg)
        result = totals.result_of_all()
        self.results[stage] = result
        known = {
            f"{stage}/{name}": value for name, value in result.metrics.items() if value is not None
        }
        # What checkpoints and early stopping look at; `log_dict`, which is for more than that,
        # takes 20 ms. `Curves` logs.
        self.trainer.callback_metrics.update(
            {name: torch.tensor(value, device=self.device) for name, value in known.items()}
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser over named groups that hold every parameter, frozen or not, and the schedule."""
        groups = parameter_groups(self.network, self.lrs, self.weight_decay, self.freezing.group)
        optimizer = make_optimizer(self.optimizer_name, groups, momentum=self.momentum)
        total = int(
            self.trainer.estimated_stepping_batches
        )  # also makes the number of batches known
        batches = int(self.trainer.num_training_batches)
        steps = steps_in(batches, self.trainer.accumulate_grad_batches)
        scheduler = lr_schedule(optimizer, self.schedule, total_steps=total, steps_per_epoch=steps)
        if not isinstance(scheduler, ReduceLROnPlateau):
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
            }
        # Behind the last batch of an epoch, which is behind its validation. What Lightning does at
        # the end of an epoch comes after the checkpoint, and a resumed run would lack it.
        when: Any = {
            "scheduler": scheduler,
            "interval": "step",
            "frequency": batches,
            "monitor": self.schedule.monitor,
        }
        return {"optimizer": optimizer, "lr_scheduler": when}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients; where each process holds a part of them, by the norm of the whole."""
        if gradient_clip_val and isinstance(self.trainer.strategy, FSDPStrategy):
            wrapped: Any = self.trainer.strategy.model
            wrapped.clip_grad_norm_(gradient_clip_val)
        elif (
            gradient_clip_val
            and gradient_clip_algorithm in (None, "norm")
            and clips_itself(optimizer)
        ):
            clip_in_step(optimizer, gradient_clip_val)
        else:
            optimizer.grad_scale = None  # type: ignore[attr-defined]  # what `clip_in_step` left there
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def backbone_config(self) -> dict[str, Any]:
        """Values from which the backbone can be built again without its weights; empty where there are none."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as ours and add what rebuilding the network needs."""
        checkpoint["thaw"] = {
            "format": 1,
            "task": type(self).__name__,
            "backbone": json.dumps(self.backbone_config()),
        }


def _several_processes() -> bool:
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )
