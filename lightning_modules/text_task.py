"""Base class of the tasks that read texts, whatever they predict."""

from typing import Any

from torch import nn

from lightning_modules.head_task import HeadTask
from lightning_modules.networks.backbones.features import FEATURES
from lightning_modules.networks.backbones.text import Pooling, TextEncoder, text_encoder
from lightning_modules.networks.classifier import Classifier
from lightning_modules.networks.freezing.plan import FreezingPlan
from lightning_modules.networks.heads.classification import (
    HeadFactory,
    LinearHead,
    reads_tokens,
)


class TextTask(HeadTask):
    """Builds any text encoder, frozen or fine-tuned, with a head."""

    network: Classifier

    def __init__(
        self,
        backbone: str | dict[str, Any] | nn.Module,
        freeze_backbone: bool = False,  # noqa: FBT001, FBT002 - named in the config
        head: HeadFactory = LinearHead,
        pooling: Pooling = "pooler",
        **settings: Any,  # noqa: ANN401 - those of the kind of task and of the base
    ) -> None:
        """Build the network.

        Args:
            backbone: Hub name, local folder, a mapping of configuration values for random weights,
                or a module; see `text_encoder`.
            freeze_backbone: Whether to freeze the encoder ("feature-based") instead of fine-tuning
                it.
            head: Builds the head from its number of inputs and outputs, for example
                `functools.partial(BiGRUHead, hidden=64)`; see `networks.heads`.
            pooling: How the vector is pooled for a head that reads no tokens; `last` is for
                decoders. See `TextEncoder`.
            settings: Arguments of the kind of task, such as `num_classes`, and of `Task`.

        Raises:
            BackboneError: If the backbone cannot be built or its weights cannot be loaded.
        """
        super().__init__(**settings)
        self.own_backbone = isinstance(backbone, nn.Module)
        features = text_encoder(backbone, None if reads_tokens(head) else pooling)
        self.network = Classifier(features, head(width=features.width, outputs=self.outputs))
        self.set_freezing_plan(FreezingPlan({FEATURES: None} if freeze_backbone else {}))

    def input_limits(self) -> dict[str, int | None]:
        """Return the number of token ids, and of tokens, that the encoder can read.

        `trained_tokens` is the length that its configuration states.
        """
        features = self.features
        assert isinstance(features, TextEncoder)  # noqa: S101 - tells the type checker
        if features.traits is None:
            return {}
        return {
            "vocab_size": features.traits.vocab_size,
            "max_tokens": features.traits.max_tokens,
            "trained_tokens": getattr(features.config, "max_position_embeddings", None),
        }

    def backbone_config(self) -> dict[str, Any]:
        """Return the values of the encoder's configuration; empty for an own module."""
        if self.own_backbone:
            return {}
        features = self.features
        assert isinstance(features, TextEncoder)  # noqa: S101 - tells the type checker
        config = features.config
        known = type(config)().to_dict()
        return {key: value for key, value in config.to_dict().items() if key in known}
