"""A classifier is `head(features(batch))`."""

from typing import Any, cast

from torch import Tensor, nn


class Classifier(nn.Module):
    """The two parts of every classifier; freezing, caching and export speak of them by these names."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, batch: Any) -> Tensor:  # noqa: ANN401 - each backbone has its own batch type
        """Logits [B, K]; K is 1 for two classes."""
        return cast(Tensor, self.head(self.features(batch)))
