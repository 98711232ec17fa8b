"""Typed batches: what a datamodule hands to a task. `B` samples, `T` tokens."""

from typing import TypedDict

from torch import Tensor


class TextBatch(TypedDict):
    """Texts of one batch, padded on the right to the longest.

    Attributes:
        input_ids: [B, T] int64 token ids.
        attention_mask: [B, T] int64, 1 for tokens and 0 for padding; each row is ones, then zeros.
        labels: [B] int64, 0..K-1.
        index: [B] int64, the sample's row in its split's file, from 0.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    index: Tensor
