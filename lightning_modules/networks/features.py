"""What stands between a backbone and a head."""

from typing import NamedTuple

from torch import Tensor


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
