"""The skeleton of every task: one step for train, val and test; optimiser; freezing; figures."""

import json
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_modules.metrics import ClassificationTotals, per_class_figures
from lightning_modules.networks.freezing import FreezingPlan, apply_plan, keep_frozen_in_eval
from lightning_modules.optim import Schedule, adamw, lr_schedule, parameter_groups

STAGES = ("train", "val", "test")


class NonFiniteLossError(ArithmeticError):
    """A loss became NaN or infinite."""

    is_for_the_user = True


@dataclass(frozen=True)
class StageResult:
    """What a stage came to.

    Attributes:
        figures: Name -> value; None where a figure is undefined.
        classes: Precision, recall, F1 and support of each class.
        confusion: [K][K] counts, row the label, column the prediction.
        calibration: Bins of the reliability diagram.
        samples: Index [N], probabilities [N, K] and labels [N], ordered by index; None for train.
    """

    figures: dict[str, float | None]
    classes: list[dict[str, float]]
    confusion: list[list[int]]
    calibration: list[dict[str, float]]
    samples: tuple[Tensor, Tensor, Tensor] | None

    @property
    def count(self) -> int:
        """Samples that the figures rest on."""
        return sum(map(sum, self.confusion))


class Task(lightning.LightningModule):
    """Base of all tasks. A subclass builds `network`, with the children `features` and `head`, and gives the loss.

    Attributes:
        network: The plain torch module.
        freezing: Which parameters train at which epoch.
        results: Stage -> what it came to last.
    """

    network: nn.Module
    freezing: FreezingPlan

    def __init__(
        self, num_classes: int, lr: float, backbone_lr: float, weight_decay: float, schedule: Schedule, warmup: float
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.lrs = {"features": backbone_lr, "head": lr}
        self.weight_decay, self.schedule, self.warmup = weight_decay, schedule, warmup
        self.results: dict[str, StageResult] = {}
        self.totals = nn.ModuleDict(
            {f"{stage}_totals": ClassificationTotals(num_classes, keep_samples=stage != "train") for stage in STAGES}
        )

    @abstractmethod
    def loss_and_probabilities(self, batch: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - each task has its batch type
        """The batch's mean loss and its class probabilities [B, K]."""

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

    def _shared_step(self, batch: Any, stage: str) -> Tensor:  # noqa: ANN401 - each task has its batch type
        loss, probabilities = self.loss_and_probabilities(batch)
        self._totals(stage).update(loss.detach(), probabilities.detach(), batch["labels"], batch["index"])
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401, ARG002 - Lightning's signature
        """Loss of a training batch."""
        return self._shared_step(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401, ARG002 - Lightning's signature
        """Loss of a validation batch."""
        return self._shared_step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401, ARG002 - Lightning's signature
        """Loss of a test batch."""
        return self._shared_step(batch, "test")

    def _totals(self, stage: str) -> ClassificationTotals:
        totals = self.totals[f"{stage}_totals"]
        assert isinstance(totals, ClassificationTotals)  # noqa: S101 - tells the type checker
        return totals

    def on_train_epoch_start(self) -> None:
        """Bring freezing to this epoch and start counting from nothing."""
        apply_plan(self.network, self.freezing, self.current_epoch)
        self._totals("train").reset()
        self.results.clear()

    def on_validation_epoch_start(self) -> None:
        """Start counting from nothing."""
        self._totals("val").reset()

    def on_test_epoch_start(self) -> None:
        """Start counting from nothing."""
        self._totals("test").reset()

    def on_train_epoch_end(self) -> None:
        """Compute the epoch's figures."""
        self._finish("train")

    def on_validation_epoch_end(self) -> None:
        """Compute the figures."""
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Compute the figures."""
        self._finish("test")

    def _finish(self, stage: str) -> None:
        totals = self._totals(stage)
        if not bool(torch.isfinite(totals.loss_sum)):
            msg = (
                f"the {stage} loss of epoch {self.current_epoch} is {float(totals.loss_sum)}; "
                f"lower model.lr and model.backbone_lr, or set trainer.gradient_clip_val"
            )
            raise NonFiniteLossError(msg)
        with totals.sync_context(should_sync=totals._to_sync and torch.distributed.is_initialized()):  # noqa: SLF001
            confusion: list[list[int]] = totals.confusion.tolist()
            samples = tuple(t.cpu() for t in totals.samples()) if totals.keep_samples else None
            calibration = totals.calibration()
        figures: dict[str, float | None] = totals.compute()
        self.results[stage] = StageResult(figures, per_class_figures(confusion), confusion, calibration, samples)  # type: ignore[arg-type]
        known = {f"{stage}/{name}": value for name, value in figures.items() if value is not None}
        self.log_dict(known, sync_dist=False, rank_zero_only=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over named groups that hold every parameter, frozen or not, and the schedule over steps."""
        groups = parameter_groups(self.network, self.lrs, self.weight_decay)
        # Lightning refuses to clip gradients under mixed precision with a fused optimiser.
        optimizer = adamw(groups, fused=self.trainer.precision == "32-true")
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = lr_schedule(optimizer, schedule=self.schedule, warmup=self.warmup, total_steps=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def backbone_config(self) -> dict[str, Any]:
        """Values from which the backbone can be built again without its weights; empty where there are none."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as ours and add what rebuilding the network needs."""
        checkpoint["thaw"] = {"format": 1, "task": type(self).__name__, "backbone": json.dumps(self.backbone_config())}
