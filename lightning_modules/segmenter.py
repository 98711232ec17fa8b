"""Semantic segmentation: any network of Hugging Face that gives logits at a reduced resolution."""

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from datamodules.batches import IGNORE_INDEX, SegmentationBatch
from lightning_modules.base import Task
from lightning_modules.losses.upsampled_cross_entropy import upsampled_cross_entropy
from lightning_modules.metrics.segmentation import METRIC_NAMES, SegmentationTotals
from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.segmentation import (
    SegmentationLogits,
    SegmentationNetwork,
    segmentation_network,
)
from lightning_modules.networks.freezing.plan import FreezingPlan


class Segmenter(Task):
    """BEiT with UPerNet (Bao, Dong & Wei 2021, arXiv 2106.08254), SegFormer and their kin."""

    network: SegmentationNetwork

    def __init__(
        self,
        backbone: str | dict[str, Any],
        num_classes: int,
        freeze_backbone: bool = False,  # noqa: FBT001, FBT002 - named in the config
        auxiliary_weight: Annotated[float, Ge(0)] = 0.4,
        checkpoint_encoder: bool = False,  # noqa: FBT001, FBT002 - named in the config
        checkpoint_head: bool = False,  # noqa: FBT001, FBT002 - named in the config
        **training: Any,  # noqa: ANN401 - the base's own arguments
    ) -> None:
        """Build the network.

        Args:
            backbone: Hub name, local folder, or the values of a configuration for random weights.
            num_classes: K.
            freeze_backbone: Whether all of it stays as it is; `LayerUnfreezing` freezes a part.
            auxiliary_weight: Weight of the auxiliary head's loss while training, where the network
                has one.
            checkpoint_encoder: Whether to save memory by computing the backbone's layers twice.
            checkpoint_head: The same for the head.
            training: See `Task`.

        Raises:
            BackboneError: If the backbone cannot be had.
        """
        super().__init__(num_classes, **training)
        self.save_hyperparameters(logger=False)  # dashboards get the redacted config instead
        self.auxiliary_weight = auxiliary_weight
        self.network = segmentation_network(
            backbone,
            num_classes,
            checkpoint_encoder=checkpoint_encoder,
            checkpoint_head=checkpoint_head,
        )
        self.use_plan(FreezingPlan({"features": None} if freeze_backbone else {}))

    @staticmethod
    def metric_names(num_classes: int) -> list[str]:  # noqa: ARG004 - the same for any number
        """See `segmentation_metrics.segmentation_metrics`; and the loss."""
        return METRIC_NAMES

    def new_totals(self, *, keep_samples: bool) -> SegmentationTotals:
        """Counts of pixels, and where samples are kept two metrics of each image."""
        return SegmentationTotals(self.num_classes, keep_samples=keep_samples)

    def forward(self, batch: SegmentationBatch) -> Tensor:
        """The most probable class of each pixel, [B, H, W] uint8, at the size of the masks; 255 in their padding."""
        _, predictions = self._measured(self.network(batch).logits, batch)
        return predictions

    def shared_step(self, batch: SegmentationBatch, totals: SegmentationTotals | None) -> Tensor:
        """Mean loss over the labelled pixels; while training with the auxiliary head's, which no metric contains."""
        logits, auxiliary = self._logits(batch)
        loss, predictions = self._measured(logits, batch)
        if totals is not None:
            totals.update(
                loss.detach(), predictions, batch["labels"], batch["sizes"], batch["index"]
            )
        if auxiliary is None or not self.training or not self.auxiliary_weight:
            return loss
        return loss + self.auxiliary_weight * self._measured(auxiliary, batch)[0]

    def loss_count(self, batch: SegmentationBatch) -> Tensor:
        """Labelled pixels."""
        return (batch["labels"] != IGNORE_INDEX).sum()

    def _logits(self, batch: SegmentationBatch) -> SegmentationLogits:
        try:
            logits: SegmentationLogits = self.network(batch)
        except ValueError as error:
            if not str(error).startswith("Expected more than 1 value per channel"):
                raise
            msg = (
                f"a training batch of {len(batch['index'])} pair: BatchNorm in the network's head needs two; set "
                f"data.batch_size=2 or more (model.checkpoint_encoder and model.checkpoint_head save memory), and give two "
                f"training pairs or more"
            )
            raise BackboneError(msg) from error
        return logits

    def _measured(self, logits: Tensor, batch: SegmentationBatch) -> tuple[Tensor, Tensor]:
        """Loss and predictions at the size of each mask."""
        labels = batch["labels"]
        smoothing = self.label_smoothing if self.training else 0.0
        # Training pairs are of one size; asking a GPU would make it wait.
        if self.training or bool(
            (batch["sizes"] == torch.tensor(labels.shape[-2:], device=labels.device)).all()
        ):
            return upsampled_cross_entropy(logits, labels, smoothing)
        predictions = torch.full_like(labels, IGNORE_INDEX)
        loss, pixels = logits.new_zeros((), dtype=torch.float32), 0
        for i, (height, width) in enumerate(batch["sizes"].tolist()):
            own = labels[i : i + 1, :height, :width]
            own_loss, predictions[i : i + 1, :height, :width] = upsampled_cross_entropy(
                logits[i : i + 1], own, smoothing
            )
            count = int((own != IGNORE_INDEX).sum())
            loss, pixels = loss + own_loss * count, pixels + count
        return loss / max(1, pixels), predictions

    def uninitialized(self) -> str:
        """The layers that the weights did not cover."""
        return self.network.uninitialized

    def backbone_config(self) -> dict[str, Any]:
        """The network's configuration, and the input that its weights expect."""
        return self.network.config()
