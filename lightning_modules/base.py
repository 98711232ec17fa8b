"""Base class of all tasks: a step shared by all stages, freezing and metrics."""

import json
import math
from abc import abstractmethod
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from lightning_modules.distributed import rewrap_ddp, share_of_global_mean
from lightning_modules.losses.classification import NonFiniteLossError
from lightning_modules.metrics.totals import StageResult, StageTotals
from lightning_modules.networks.backbones.features import BACKBONE, FEATURES, HEAD
from lightning_modules.networks.freezing.plan import FreezingPlan, apply_plan, keep_frozen_in_eval
from lightning_modules.optim.optimizers import OptimizerName
from lightning_modules.optim.schedules import Schedule, ScheduleName
from lightning_modules.optimization import OptimizedModule

STAGES = ("train", "val", "test")


class Task(OptimizedModule):
    """Base class of all tasks.

    A subclass builds `network`, with the children `features` and `head`, and accumulates its
    outputs in totals.

    Attributes:
        results: Stage -> its latest result.
    """

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
        """Set the training options that all tasks share.

        Args:
            num_classes: K.
            lr: Peak learning rate of the head.
            backbone_lr: Peak learning rate of the backbone.
            weight_decay: Weight decay of the weights; biases and norms are not decayed.
            optimizer: `adamw` or `sgd`. Without weight decay, `adamw` is Adam.
            momentum: Nesterov momentum of `sgd`, 0..1.
            label_smoothing: Share of the label that is spread over all classes while training,
                0..1.
            schedule: Name of the learning-rate schedule; see `Schedule` for this and the following
                arguments.
            warmup: Length of the warm-up as a fraction of all steps, 0..1.
            decay: Factor on the learning rate, 0..1.
            min_lr: Lower bound of a decaying learning rate.
            patience: Number of epochs without improvement before `plateau` decays.
            monitor: The metric that `plateau` monitors.
            mode: `min` if lower values of the monitored metric are better, else `max`.
        """
        super().__init__()
        self.num_classes = num_classes
        self.lrs = {FEATURES: backbone_lr, HEAD: lr}
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
        """Return the names of a stage's metrics, to check `monitor` before the run starts."""

    @abstractmethod
    def new_totals(self, *, keep_samples: bool) -> StageTotals:
        """Return the totals that accumulate one stage.

        Args:
            keep_samples: Whether to keep values of each sample in addition to the sums.
        """

    @abstractmethod
    def shared_step(self, batch: Any, totals: Any) -> Tensor:  # noqa: ANN401 - each task has its own
        """Run one step of any stage: add the batch to the totals and return the loss.

        Args:
            batch: The batch.
            totals: Totals of the stage. None if the batch must not be counted: a process repeats
                batches so that all processes run the same number of steps.

        Returns:
            The loss to minimise, a scalar.
        """

    def loss_count(self, batch: Any) -> Tensor:  # noqa: ANN401 - each task has its own
        """Return how many items a batch's loss averages over: a scalar, the number of samples."""
        return torch.tensor(len(batch["index"]), device=self.device)

    def uninitialized(self) -> str:
        """Name the parts that start from random weights, for messages; empty if there are none."""
        return "the head"

    @property
    def features(self) -> nn.Module:
        """The part of the network that turns a batch into features."""
        return self.network.get_submodule(FEATURES)

    @property
    def backbone(self) -> nn.Module:
        """The pretrained part of `features`."""
        return self.network.get_submodule(BACKBONE)

    def set_freezing_plan(self, plan: FreezingPlan) -> None:
        """Set the freezing plan and apply it for the first epoch.

        Raises:
            FreezingError: If the plan names a layer that the network does not have.
        """
        plan.check(self.network)
        self.freezing = plan
        apply_plan(self.network, plan, epoch=0)

    def train(self, mode: bool = True) -> "Task":  # noqa: FBT001, FBT002 - torch's own signature
        """Set the mode; frozen modules stay in eval mode."""
        super().train(mode)
        if hasattr(self, "network"):
            keep_frozen_in_eval(self.network)
        return self

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401 - Lightning's signature
        """Return the loss of a training batch.

        With several processes, the loss is weighted: see `share_of_global_mean`.
        """
        totals = self._totals_for_batch("train", batch_idx)
        loss = self.shared_step(batch, totals)
        own = self.loss_count(batch) if totals is not None else torch.zeros((), device=self.device)
        return share_of_global_mean(loss, own)

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401 - Lightning's signature
        """Return the loss of a validation batch."""
        return self.shared_step(batch, self._totals_for_batch("val", batch_idx))

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401 - Lightning's signature
        """Return the loss of a test batch."""
        return self.shared_step(batch, self._totals_for_batch("test", batch_idx))

    def _totals_for_batch(self, stage: str, batch_idx: int) -> StageTotals | None:
        """Return the totals of a stage, or None if the sampler marks the batch as repeated."""
        loaders = {
            "train": "train_dataloader",
            "val": "val_dataloaders",
            "test": "test_dataloaders",
        }
        sampler: Any = getattr(getattr(self.trainer, loaders[stage], None), "batch_sampler", None)
        return (
            self._totals(stage)
            if not hasattr(sampler, "is_counted") or sampler.is_counted(batch_idx)
            else None
        )

    def _totals(self, stage: str) -> StageTotals:
        totals = self.totals[f"{stage}_totals"]
        assert isinstance(totals, StageTotals)  # noqa: S101 - tells the type checker
        return totals

    def on_train_epoch_start(self) -> None:
        """Apply the freezing plan for this epoch and reset the totals."""
        if apply_plan(self.network, self.freezing, self.current_epoch):
            # Newly trainable modules must leave eval mode; Lightning keeps the modes it finds.
            self.train()
            rewrap_ddp(self)
        self._totals("train").reset()
        self.results.clear()

    def on_validation_epoch_start(self) -> None:
        """Reset the totals."""
        self._totals("val").reset()

    def on_test_epoch_start(self) -> None:
        """Reset the totals."""
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
        result = totals.global_result()
        self.results[stage] = result
        known = {
            f"{stage}/{name}": value for name, value in result.metrics.items() if value is not None
        }
        # Checkpoints and early stopping read `callback_metrics`. `log_dict` also fills it, but
        # takes 20 ms. `Curves` does the logging.
        self.trainer.callback_metrics.update(
            {name: torch.tensor(value, device=self.device) for name, value in known.items()}
        )

    def backbone_config(self) -> dict[str, Any]:
        """Return the values that rebuild the backbone without its weights; empty by default."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as Thaw's and add the values that rebuild the network."""
        checkpoint["thaw"] = {
            "format": 1,
            "task": type(self).__name__,
            "backbone": json.dumps(self.backbone_config()),
        }
