"""The interface between a backbone and a head."""

from typing import NamedTuple

from torch import Tensor

from run_folders.errors import UserError

# Names of the parts of a network `head(features(batch))`. The pretrained part of `features` is its
# attribute `model`.
FEATURES, HEAD, MODEL = "features", "head", "model"
BACKBONE = f"{FEATURES}.{MODEL}"


class BackboneError(UserError, ValueError):
    """A backbone cannot be built as configured, or its weights cannot be loaded."""


class Features(NamedTuple):
    """The output of a backbone and the input of a head.

    Attributes:
        values: [B, C] pooled vectors, or [B, T, C] hidden states of the tokens.
        lengths: [B] int64 number of tokens before the padding; None for pooled vectors.
    """

    values: Tensor
    lengths: Tensor | None = None
