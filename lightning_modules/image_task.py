"""Base class of the tasks that read images, whatever they predict."""

from typing import Annotated, Any, cast

from annotated_types import Ge, Interval
from torch import Tensor, nn

from datamodules.batches import FeatureBatch, ImageBatch
from lightning_modules.head_task import HeadTask
from lightning_modules.networks.backbones.features import FEATURES
from lightning_modules.networks.backbones.image import image_encoder
from lightning_modules.networks.backbones.image_encoder import ImageEncoder
from lightning_modules.networks.classifier import Classifier
from lightning_modules.networks.freezing.plan import FreezingPlan
from lightning_modules.networks.heads.classification import (
    HeadError,
    HeadFactory,
    LinearHead,
    reads_tokens,
)
from lightning_modules.networks.tokens.errors import TokenError
from lightning_modules.networks.tokens.insertion import LearnTokensOptions
from lightning_modules.networks.tokens.merging import MergedTokens


class ImageTask(HeadTask):
    """Builds any timm backbone, wholly or partly frozen, with a linear or MLP head."""

    network: Classifier

    def __init__(
        self,
        backbone: str | dict[str, Any] | nn.Module,
        weights: str | None = None,
        image_size: Annotated[int, Ge(2)] | None = None,
        freeze_backbone: bool = False,  # noqa: FBT001, FBT002 - named in the config
        head: HeadFactory = LinearHead,
        tta_flip: bool = False,  # noqa: FBT001, FBT002 - named in the config
        merge_tokens: MergedTokens | None = None,
        learned_tokens: LearnTokensOptions | None = None,
        reconstruction: Annotated[float, Ge(0)] = 0.0,
        reconstruction_masked: Annotated[float, Interval(ge=0, lt=1)] = 0.2,
        backbone_lr: Annotated[float, Ge(0)] = 1e-4,
        **settings: Any,  # noqa: ANN401 - those of the kind of task and of the base
    ) -> None:
        """Build the network.

        Args:
            backbone: A timm model name, a local folder, a mapping with `architecture` for random
                weights, or a module; see `image_encoder`.
            weights: Local file or folder of the backbone's weights; None loads the backbone's own
                pretrained weights.
            image_size: Side of the network's input in pixels; None uses the size that the weights
                were trained with.
            freeze_backbone: Whether to freeze the whole backbone; `LayerUnfreezing` freezes a part.
            head: Builds the head from its number of inputs and outputs, for example
                `functools.partial(MLPHead, hidden=[64])`; see `networks.heads`.
            tta_flip: Whether to average the logits of an image and of its horizontal mirror
                image (test-time augmentation); never applied in training.
            merge_tokens: Number of tokens that each block of a vision transformer merges (ToMe), a
                number for each block, or a schedule; see `networks.tokens.merging`.
            learned_tokens: Learned tokens in a vision transformer (TokenLearner): `after` which
                block and their `number`; see `networks.tokens.insertion`.
            reconstruction: Weight of FDViT's reconstruction loss, which is added while training.
            reconstruction_masked: Probability that a token is left out for that loss.
            backbone_lr: Peak learning rate of the backbone.
            settings: Arguments of the kind of task, such as `num_classes`, and of `Task`.

        Raises:
            BackboneError: If the backbone cannot be built, or its weights cannot be loaded.
            TokenError: If it does not allow merged tokens, learned tokens or the reconstruction
                loss.
            HeadError: If the head reads tokens.
        """
        super().__init__(backbone_lr=backbone_lr, **settings)
        if reads_tokens(head):
            msg = (
                "model.head: this head reads tokens, and an image has one pooled vector; "
                "set head=linear or head=mlp"
            )
            raise HeadError(msg)
        self.tta_flip = tta_flip
        self.own_backbone = isinstance(backbone, nn.Module)
        if freeze_backbone and reconstruction:
            msg = (
                "model.reconstruction trains the backbone, and model.freeze_backbone=true freezes "
                "it; set only one of them"
            )
            raise TokenError(msg)
        self.reconstruction, self.reconstruction_masked = reconstruction, reconstruction_masked
        features = image_encoder(
            backbone,
            weights,
            image_size,
            merged=merge_tokens,
            learned=learned_tokens,
            reconstructed=reconstruction > 0,
        )
        self.network = Classifier(features, head(width=features.width, outputs=self.outputs))
        self.set_freezing_plan(FreezingPlan({FEATURES: None} if freeze_backbone else {}))

    def logits(self, batch: ImageBatch | FeatureBatch) -> Tensor:
        """Return logits [B, K]; with `tta_flip`, averaged with those of the mirror images."""
        logits = super().logits(batch)
        if self.training or not self.tta_flip:
            return logits
        return (logits + super().logits(_mirrored(batch))) / 2

    def logits_and_auxiliary_loss(
        self, batch: ImageBatch | FeatureBatch
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits [B, K], and while training the weighted reconstruction loss, if any."""
        # Stored features are those of a backbone that never trains.
        if "features" in batch or not (self.training and self.reconstruction):
            return super().logits_and_auxiliary_loss(batch)
        features = cast(ImageEncoder, self.features)
        pooled, loss = features.forward_with_reconstruction(batch, self.reconstruction_masked)
        return cast(Tensor, self.network.head(pooled)), self.reconstruction * loss

    def backbone_config(self) -> dict[str, Any]:
        """Return architecture, arguments and input format; empty for an own module."""
        if self.own_backbone:
            return {}
        features = self.features
        assert isinstance(features, ImageEncoder)  # noqa: S101 - tells the type checker
        return features.config


def _mirrored(batch: ImageBatch | FeatureBatch) -> ImageBatch | FeatureBatch:
    """Return the batch of the horizontally mirrored images."""
    labels, index = batch["labels"], batch["index"]
    if "features" in batch:
        return FeatureBatch(
            features=cast(FeatureBatch, batch)["mirrored"], labels=labels, index=index
        )
    return ImageBatch(pixel_values=batch["pixel_values"].flip(-1), labels=labels, index=index)
