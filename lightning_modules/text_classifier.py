"""Text classification: any encoder, frozen or fine-tuned, with a linear or BiGRU head."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval

from lightning_modules.classification import ClassificationTask
from lightning_modules.losses.classification import num_outputs
from lightning_modules.networks.backbones.features import FEATURES
from lightning_modules.networks.backbones.text import Pooling, TextEncoder, text_encoder
from lightning_modules.networks.classifier import Classifier
from lightning_modules.networks.freezing.plan import FreezingPlan
from lightning_modules.networks.heads.classification import BiGRUHead, LinearHead


class TextClassifier(ClassificationTask):
    """The models of Alghamdi, Lin & Luo (Knowledge-Based Systems 274, 2023) with any encoder."""

    network: Classifier

    def __init__(
        self,
        backbone: str | dict[str, Any],
        num_classes: int,
        freeze_backbone: bool = False,  # noqa: FBT001, FBT002 - named in the config
        head: Literal["linear", "bigru"] = "linear",
        pooling: Pooling = "pooler",
        hidden: Annotated[int, Ge(1)] = 128,
        dropout: Annotated[float, Interval(ge=0, le=0.999)] = 0.0,
        **training: Any,  # noqa: ANN401 - the base's own arguments
    ) -> None:
        """Build the network.

        Args:
            backbone: Hub name, local folder, or a mapping of configuration values for random
                weights.
            num_classes: K.
            freeze_backbone: Whether to freeze the encoder ("feature-based") instead of fine-tuning
                it.
            head: `linear` reads the pooled vector, `bigru` the hidden states of all tokens.
            pooling: How the vector for the linear head is pooled.
            hidden: Units of the GRU in each direction.
            dropout: Dropout probability before the output layer, 0..1.
            training: Arguments of `Task`.

        Raises:
            BackboneError: If the backbone cannot be built or its weights cannot be loaded.
        """
        super().__init__(num_classes, **training)
        self.save_hyperparameters(logger=False)  # dashboards get the redacted config instead
        features = text_encoder(backbone, pooling if head == "linear" else None)
        outputs = num_outputs(num_classes)
        if head == "linear":
            self.network = Classifier(features, LinearHead(features.width, outputs, dropout))
        else:
            self.network = Classifier(features, BiGRUHead(features.width, hidden, outputs, dropout))
        self.set_freezing_plan(FreezingPlan({FEATURES: None} if freeze_backbone else {}))

    def backbone_config(self) -> dict[str, Any]:
        """Return the values of the encoder's configuration."""
        features = self.features
        assert isinstance(features, TextEncoder)  # noqa: S101 - tells the type checker
        config = features.config
        known = type(config)().to_dict()
        return {key: value for key, value in config.to_dict().items() if key in known}
