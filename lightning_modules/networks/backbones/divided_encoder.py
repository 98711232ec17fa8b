"""Base class of encoders that can run in two parts: up to a layer, and from a layer on."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lightning_modules.networks.backbones.features import Features
from lightning_modules.networks.dividing.errors import CannotDivideError
from lightning_modules.networks.dividing.layer_states import PooledState
from lightning_modules.networks.dividing.recording import Record
from lightning_modules.networks.dividing.two_parts import (
    PrefixCost,
    TwoParts,
    divide,
    prefix_cost,
)


class DividedEncoder(nn.Module, ABC):
    """Batch -> features, through a network that can be divided before its layers.

    Attributes:
        model: The network.
    """

    model: nn.Module

    def __init__(self) -> None:
        """Start without parts; they are found on request."""
        super().__init__()
        self._parts: dict[str, TwoParts] = {}

    @abstractmethod
    def record(self) -> Record:
        """Run `model` on a few random inputs and record which modules run."""

    @abstractmethod
    def why_undivided(self) -> str:
        """Return why the network can be divided before no layer; empty if it can."""

    @abstractmethod
    def forward_until(self, layer: str, batch: Any) -> Features:  # noqa: ANN401 - each dataset has its batch type
        """Return the input of a layer of `model`, one state for each sample or token."""

    @abstractmethod
    def forward_from(self, layer: str, state: Features) -> Features:
        """Return what `forward` returns, from the input of a layer."""

    @abstractmethod
    def layer_features(self, layers: Sequence[str], batch: Any) -> dict[str | None, Features]:  # noqa: ANN401 - each dataset has its batch type
        """Run once, and return the input of each layer and, for None, the output."""

    @abstractmethod
    def pooled_states(self, layers: Sequence[str], batch: Any) -> dict[PooledState, Tensor]:  # noqa: ANN401 - each dataset has its batch type
        """Return the inputs of layers and the output, each pooled to vectors [B, C]."""

    def parts(self, layer: str, recorded: Record | None = None) -> TwoParts:
        """Return the two parts of `model`, before a layer and from it on.

        Args:
            layer: Name of the layer in `model`.
            recorded: What `record` returned for the present weights; None records now.

        Raises:
            CannotDivideError: If the network cannot run in these parts.
        """
        reason = self.why_undivided()
        if reason:
            raise CannotDivideError(reason)
        if layer not in self._parts:
            recorded = recorded or self.record()
            parts, sizes = divide(self.model, layer, recorded), recorded.trials[-1].sizes
            if parts.state[: len(sizes)] != sizes:
                unit = "sample" if len(sizes) == 1 else "token"
                msg = f"{layer} receives states of shape {[*parts.state]}, not one for each {unit}"
                raise CannotDivideError(msg)
            self._parts[layer] = parts
        return self._parts[layer]

    def prefix_cost(self, layer: str) -> PrefixCost:
        """Return what the layers before a layer compute."""
        recorded = self.record()
        return prefix_cost(self.model, self.parts(layer, recorded), recorded)
