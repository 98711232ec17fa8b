"""A classifier is `head(features(batch))`."""

from typing import Any, cast

from torch import Tensor, nn

from lightning_modules.networks.backbones.features import Features
from lightning_modules.networks.freezing.prefix import Cut


class Classifier(nn.Module):
    """The two parts of every classifier; freezing, caching and export speak of them by these names.

    Attributes:
        cut: What the features of a `FeatureBatch` have behind them already.
    """

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.cut = Cut()

    def forward(self, batch: Any) -> Tensor:  # noqa: ANN401 - each backbone has its own batch type
        """Logits [B, K]; K is 1 for two classes. Of a `FeatureBatch` only what is behind the cut is computed."""
        if "features" in batch:
            stored = Features(batch["features"], batch.get("lengths"))
            return cast(Tensor, self.head(self.cut.suffix(self.features, stored)))
        return cast(Tensor, self.head(self.features(batch)))
