"""The network of the classifiers: `head(features(batch))`."""

from typing import Any, cast

from torch import Tensor, nn

from lightning_modules.networks.backbones.features import Features
from lightning_modules.networks.freezing.prefix import Cut


class Classifier(nn.Module):
    """A backbone `features` and a `head`; freezing, caching and export use these names.

    Attributes:
        cut: The cut at which the stored features of a `FeatureBatch` were computed.
    """

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.cut = Cut()

    def forward(self, batch: Any) -> Tensor:  # noqa: ANN401 - each backbone has its own batch type
        """Return logits [B, K]; K is 1 for two classes.

        A `FeatureBatch` has stored features; only the layers after the cut are computed.
        """
        if "features" in batch:
            stored = Features(batch["features"], batch.get("lengths"))
            return cast(Tensor, self.head(self.cut.suffix(self.features, stored)))
        return cast(Tensor, self.head(self.features(batch)))
