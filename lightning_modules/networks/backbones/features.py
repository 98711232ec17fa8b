"""What stands between a backbone and a head."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from run_folders.errors import UserError


class BackboneError(UserError, ValueError):
    """A backbone cannot be had, or not in this form."""


class Features(NamedTuple):
    """What a backbone hands to a head.

    Attributes:
        values: [B, C] pooled vectors, or [B, T, C] token states.
        lengths: [B] int64 number of tokens before the padding; None for pooled vectors.
    """

    values: Tensor
    lengths: Tensor | None = None


def starting_at(names: Iterable[str], first: str) -> list[str]:
    """The names from one of them on."""
    listed = list(names)
    return listed[listed.index(first) :]
