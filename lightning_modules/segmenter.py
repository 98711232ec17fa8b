"""Semantic segmentation: Hugging Face networks that return logits at a reduced resolution."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn

from datamodules.batches import IGNORE_INDEX, SegmentationBatch
from lightning_modules.base import Task
from lightning_modules.losses.errors import LossError, try_loss
from lightning_modules.losses.segmentation import SegmentationLoss, UpsampledCrossEntropy
from lightning_modules.metrics.segmentation import METRIC_NAMES, SegmentationTotals
from lightning_modules.networks.backbones.features import FEATURES, BackboneError
from lightning_modules.networks.backbones.segmentation import segmentation_network
from lightning_modules.networks.backbones.segmentation_network import (
    SegmentationLogits,
    SegmentationNetwork,
)
from lightning_modules.networks.freezing.plan import FreezingPlan


class Segmenter(Task):
    """BEiT with UPerNet (Bao, Dong & Wei 2021, arXiv 2106.08254), SegFormer and others."""

    kind: ClassVar[str] = "segmentation"
    network: SegmentationNetwork

    def __init__(
        self,
        backbone: str | dict[str, Any],
        num_classes: int,
        freeze_backbone: bool = False,  # noqa: FBT001, FBT002 - named in the config
        auxiliary_weight: Annotated[float, Ge(0)] = 0.4,
        checkpoint_encoder: bool = False,  # noqa: FBT001, FBT002 - named in the config
        checkpoint_head: bool = False,  # noqa: FBT001, FBT002 - named in the config
        lr: Annotated[float, Ge(0)] = 6e-5,
        backbone_lr: Annotated[float, Ge(0)] = 6e-5,
        **training: Any,  # noqa: ANN401 - the base's own arguments
    ) -> None:
        """Build the network.

        Args:
            backbone: Hub name, local folder, or a mapping of configuration values for random
                weights.
            num_classes: K.
            freeze_backbone: Whether to freeze the whole backbone; `LayerUnfreezing` freezes a part.
            auxiliary_weight: Weight of the auxiliary head's loss while training; unused if the
                network has no auxiliary head.
            checkpoint_encoder: Whether to use activation checkpointing for the backbone's layers,
                which saves memory and computes them twice.
            checkpoint_head: Whether to use activation checkpointing for the head.
            lr: Peak learning rate of the head.
            backbone_lr: Peak learning rate of the backbone.
            training: Arguments of `Task`.

        Raises:
            BackboneError: If the backbone cannot be built or its weights cannot be loaded.
        """
        self.num_classes = num_classes
        super().__init__(lr=lr, backbone_lr=backbone_lr, **training)
        self.auxiliary_weight = auxiliary_weight
        self.network = segmentation_network(
            backbone,
            num_classes,
            checkpoint_encoder=checkpoint_encoder,
            checkpoint_head=checkpoint_head,
        )
        self.set_freezing_plan(FreezingPlan({FEATURES: None} if freeze_backbone else {}))

    @staticmethod
    def default_loss() -> UpsampledCrossEntropy:
        """Return the cross-entropy at the size of the masks."""
        return UpsampledCrossEntropy()

    def checked_loss(self, loss: nn.Module) -> nn.Module:
        """Return the loss, or raise `LossError` if it is no `SegmentationLoss`."""
        if not isinstance(loss, SegmentationLoss):
            msg = (
                f"model.loss: {type(loss).__name__} is not a SegmentationLoss, which reads logits "
                f"at their own size; set loss=upsampled_cross_entropy"
            )
            raise LossError(msg)
        labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
        try_loss(loss, torch.zeros(1, self.num_classes, 2, 2), labels)
        return super().checked_loss(loss)

    def label_fault(self, labels: Tensor) -> str:
        """Return why labels are not masks; empty if they are."""
        if labels.ndim == 3:  # noqa: PLR2004
            return ""
        return f"{type(self).__name__} needs a mask for each image; choose data=segmentation"

    @classmethod
    def metric_names(cls, settings: Mapping[str, Any]) -> list[str]:  # noqa: ARG003 - always the same
        """Return the names of the metrics, see `segmentation_metrics`, and the loss."""
        return METRIC_NAMES

    def new_totals(self, *, keep_samples: bool) -> SegmentationTotals:
        """Return totals of pixel counts; with `keep_samples`, also two metrics of each image."""
        return SegmentationTotals(self.num_classes, keep_samples=keep_samples)

    def forward(self, batch: SegmentationBatch) -> Tensor:
        """Return the most probable class of each pixel, [B, H, W] uint8.

        H and W are the size of the padded masks. Padding pixels are 255.
        """
        _, predictions = self._loss_and_predictions(self.network(batch).logits, batch)
        return predictions

    def shared_step(self, batch: SegmentationBatch, totals: SegmentationTotals | None) -> Tensor:
        """Return the mean loss over the labelled pixels and add the batch to the totals.

        While training, the loss includes the weighted loss of the auxiliary head. The metrics
        exclude it.
        """
        logits, auxiliary = self._logits(batch)
        loss, predictions = self._loss_and_predictions(logits, batch)
        if totals is not None:
            totals.update(
                loss.detach(), predictions, batch["labels"], batch["sizes"], batch["index"]
            )
        if auxiliary is None or not self.training or not self.auxiliary_weight:
            return loss
        return loss + self.auxiliary_weight * self._loss_and_predictions(auxiliary, batch)[0]

    def loss_count(self, batch: SegmentationBatch) -> Tensor:
        """Return the number of labelled pixels, a scalar."""
        return (batch["labels"] != IGNORE_INDEX).sum()

    def _logits(self, batch: SegmentationBatch) -> SegmentationLogits:
        try:
            logits: SegmentationLogits = self.network(batch)
        except ValueError as error:
            if not str(error).startswith("Expected more than 1 value per channel"):
                raise
            msg = (
                f"received a training batch of {len(batch['index'])} pair; BatchNorm in the "
                f"network's head needs two or more; set data.batch_size=2 or more "
                f"(model.checkpoint_encoder and model.checkpoint_head save memory), "
                f"and provide two training pairs or more"
            )
            raise BackboneError(msg) from error
        return logits

    def _loss_and_predictions(
        self, logits: Tensor, batch: SegmentationBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and the predictions at the size of each mask."""
        labels, measure = batch["labels"], cast(SegmentationLoss, self.loss).with_predictions
        # All training pairs have one size. Comparing sizes on a GPU would force a synchronisation.
        if self.training or bool(
            (batch["sizes"] == torch.tensor(labels.shape[-2:], device=labels.device)).all()
        ):
            return measure(logits, labels)
        predictions = torch.full_like(labels, IGNORE_INDEX)
        loss, pixels = logits.new_zeros((), dtype=torch.float32), 0
        for i, (height, width) in enumerate(batch["sizes"].tolist()):
            own = labels[i : i + 1, :height, :width]
            own_loss, predictions[i : i + 1, :height, :width] = measure(logits[i : i + 1], own)
            count = int((own != IGNORE_INDEX).sum())
            loss, pixels = loss + own_loss * count, pixels + count
        return loss / max(1, pixels), predictions

    def uninitialized(self) -> str:
        """Name the layers that the weights did not cover."""
        return self.network.uninitialized

    def backbone_config(self) -> dict[str, Any]:
        """Return the network's configuration and the input format that its weights expect."""
        return self.network.config()
