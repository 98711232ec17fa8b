"""What stands between a backbone and a head."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn


class BackboneError(ValueError):
    """A backbone cannot be had, or not in this form."""

    is_for_the_user = True


class Features(NamedTuple):
    """What a backbone hands to a head.

    Attributes:
        values: [B, C] pooled vectors, or [B, T, C] token states.
        lengths: [B] int64 number of tokens before the padding; None for pooled vectors.
    """

    values: Tensor
    lengths: Tensor | None = None


class Divisible(nn.Module, ABC):
    """A `features` part that may be run up to one of its layers, and from there on."""

    @property
    @abstractmethod
    def listed(self) -> str | None:
        """Name in `model` of the list of these layers; None where it cannot be run in two parts."""

    @abstractmethod
    def up_to(self, layer: str, batch: Any) -> Features:  # noqa: ANN401 - each backbone has its own batch type
        """The input of a layer of `model`: [B, N, C] or [B, C, H, W]."""

    @abstractmethod
    def behind(self, layer: str, state: Features) -> Features:
        """What the whole gives, [B, C], from the input of a layer."""


def names_from(names: Iterable[str], first: str) -> list[str]:
    """The names from one of them on."""
    listed = list(names)
    return listed[listed.index(first) :]
