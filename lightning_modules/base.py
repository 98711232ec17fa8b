"""Base class of all tasks: a step shared by all stages, freezing and metrics."""

import json
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.optim import AdamW

from lightning_modules.distributed import rewrap_ddp, share_of_global_mean
from lightning_modules.losses.errors import LossError, NonFiniteLossError
from lightning_modules.metrics.totals import StageResult, StageTotals
from lightning_modules.networks.backbones.features import BACKBONE, FEATURES, HEAD, BackboneError
from lightning_modules.networks.freezing.plan import (
    FreezingError,
    FreezingPlan,
    apply_plan,
    keep_frozen_in_eval,
)
from lightning_modules.optim.optimizers import OptimizerFactory
from lightning_modules.optim.schedules import Schedule, linear
from lightning_modules.optimization import OptimizedModule
from run_folders.signatures.checking import check_arguments

STAGES = ("train", "val", "test")
# Arguments that are no plain values.
_OBJECTS = ("backbone", "head", "loss", "optimizer", "schedule")


class Task(OptimizedModule):
    """Base class of all tasks.

    A subclass builds `network`, with the children `features` and `head`, and accumulates its
    outputs in totals.

    Attributes:
        kind: The kind of task; see `run_folders.kinds`.
        results: Stage -> its latest result.
        logs_metrics: Whether the metrics of a stage are logged with Lightning's `log_dict`, as
            `train/acc`, `val/acc` and so on. The engine turns it off, as its callbacks log them.
    """

    kind: ClassVar[str]
    logs_metrics = True

    def __init__(
        self,
        lr: Annotated[float, Ge(0)] = 1e-3,
        backbone_lr: Annotated[float, Ge(0)] = 2e-5,
        weight_decay: Annotated[float, Ge(0)] = 0.01,
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory = AdamW,
        schedule: Schedule = linear,
    ) -> None:
        """Set the training options that all tasks share.

        Args:
            lr: Peak learning rate of the head.
            backbone_lr: Peak learning rate of the backbone.
            weight_decay: Weight decay of the weights; biases and norms are not decayed.
            loss: The loss; None takes `default_loss`.
            optimizer: A function that builds the optimizer from parameter groups; see
                `make_optimizer`.
            schedule: The learning-rate schedule; see `lr_schedule`.

        Raises:
            ArgumentError: If a plain value has a wrong type, or is out of range.
            LossError: If the loss is not one of this kind of task, or has parameters.
        """
        super().__init__()
        # Plain values only, so that a checkpoint loads with `weights_only=True`. Dashboards get
        # the redacted config instead.
        self.save_hyperparameters(logger=False, ignore=_OBJECTS)
        check_arguments(type(self), self.hparams)
        self.lrs = {FEATURES: backbone_lr, HEAD: lr}
        self.weight_decay, self.optimizer, self.schedule = weight_decay, optimizer, schedule
        _check_instance(loss)
        self.loss = self.checked_loss(self.default_loss() if loss is None else loss)
        self.results: dict[str, StageResult] = {}
        self.totals = nn.ModuleDict(
            {f"{stage}_totals": self.new_totals(keep_samples=stage != "train") for stage in STAGES}
        )

    @staticmethod
    @abstractmethod
    def default_loss() -> nn.Module:
        """Return the loss of a task that was built without one."""

    def checked_loss(self, loss: nn.Module) -> nn.Module:
        """Return the loss, or raise `LossError` if the task cannot use it."""
        if any(True for _ in loss.parameters()):
            msg = (
                f"model.loss: {type(loss).__name__} has parameters, which no optimizer trains; "
                f"choose a loss without parameters"
            )
            raise LossError(msg)
        return loss

    @classmethod
    @abstractmethod
    def metric_names(cls, settings: Mapping[str, Any]) -> list[str]:
        """Return the names of a stage's metrics, to check `monitor` before the run starts.

        Args:
            settings: The keys of the node `model` and their values.
        """

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

    def label_fault(self, labels: Tensor) -> str:  # noqa: ARG002 - for subclasses
        """Return why labels of the data cannot be used, and what to set; empty if they can.

        Args:
            labels: Labels of a few samples, as in a batch.
        """
        return ""

    def metrics_on(self, labels: Tensor) -> dict[str, float | None]:  # noqa: ARG002 - for subclasses
        """Return the metrics of equal predictions for these labels; undefined ones are None.

        The base class returns none, so none is checked before training.

        Args:
            labels: Labels of a split, as in a batch.
        """
        return {}

    def uninitialized(self) -> str:
        """Name the parts that start from random weights, for messages; empty if there are none."""
        new = getattr(self.features, "new_parts", ())
        return "the head and new parts of the backbone" if new else "the head"

    @property
    def features(self) -> nn.Module:
        """The part of the network that turns a batch into features."""
        return self.network.get_submodule(FEATURES)

    @property
    def backbone(self) -> nn.Module:
        """The pretrained part of `features`."""
        return self.network.get_submodule(BACKBONE)

    def with_new_parts(self, plan: FreezingPlan) -> FreezingPlan:
        """Return the plan in which new parts of the backbone train like the head.

        New parts are modules without pretrained weights, see `ImageEncoder.new_parts`. They train
        from the first epoch on, with the head's learning rate.

        Raises:
            FreezingError: If there are new parts, and the backbone's learning rate is 0.
        """
        parts = tuple(f"{BACKBONE}.{name}." for name in getattr(self.features, "new_parts", ()))
        names = [name for name, _ in self.network.named_parameters() if name.startswith(parts)]
        if not names:
            return plan
        if not self.lrs[FEATURES]:
            msg = (
                "model.backbone_lr: received 0, and new parts of the backbone would not train; "
                "set model.freeze_backbone=true to freeze the others"
            )
            raise FreezingError(msg)
        group = ("_new", self.lrs[HEAD] / self.lrs[FEATURES])
        return replace(
            plan,
            starts={**plan.starts, **dict.fromkeys(names, 0)},
            groups={**plan.groups, **dict.fromkeys(names, group)},
        )

    def set_freezing_plan(self, plan: FreezingPlan) -> None:
        """Set the freezing plan and apply it for the first epoch.

        Raises:
            FreezingError: If the plan names a layer that the network does not have.
        """
        plan.check(self.network)
        plan = self.with_new_parts(plan)
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
        if self.logs_metrics:  # the values are those of all processes already
            self.log_dict({name: torch.tensor(value) for name, value in known.items()})
            return
        for name in result.metrics.keys() - {key.partition("/")[2] for key in known}:
            self.trainer.callback_metrics.pop(f"{stage}/{name}", None)  # of an earlier epoch
        # Checkpoints and early stopping read `callback_metrics`. `log_dict` also fills it, but
        # takes 20 ms.
        self.trainer.callback_metrics.update(
            {name: torch.tensor(value, device=self.device) for name, value in known.items()}
        )

    def backbone_config(self) -> dict[str, Any]:
        """Return the values that rebuild the backbone without its weights; empty by default."""
        return {}

    def on_fit_start(self) -> None:
        """Raise `BackboneError` if the data of a plain trainer exceeds what the backbone reads.

        The engine checks it before the plan is printed.
        """
        check = getattr(self.trainer.datamodule, "incompatibilities", None)  # type: ignore[attr-defined]
        faults = check(self.input_limits()) if check and self.logs_metrics else []
        if faults:
            msg = "the data does not fit the backbone"
            raise BackboneError(msg, *faults)

    def input_limits(self) -> dict[str, int | None]:
        """Return what the backbone can read at most, for the datamodule; empty by default."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as Thaw's and add the values that rebuild the network."""
        checkpoint["thaw"] = {
            "format": 1,
            "task": type(self).__name__,
            "backbone": json.dumps(self.backbone_config()),
        }


def _check_instance(loss: object) -> None:
    """Raise `LossError` if a loss that a Python program passes is no module."""
    if loss is None or isinstance(loss, nn.Module):
        return
    if isinstance(loss, type):
        msg = f"model.loss: received the class {loss.__name__}; give an instance: {loss.__name__}()"
    else:
        msg = f"model.loss: received {loss!r}; a torch.nn.Module is needed"
    raise LossError(msg)
