"""Typed batches: what a datamodule hands to a task. `B` samples, `T` tokens, `H` x `W` pixels."""

from typing import NotRequired, TypedDict

from torch import Tensor

IGNORE_INDEX = 255  # label of pixels that are not labelled, and of padding


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


class ImageBatch(TypedDict):
    """Images of one batch, all of one size; a network resizes and normalises them itself.

    Attributes:
        pixel_values: [B, 3, H, W] uint8, red, green, blue in 0..255.
        labels: [B] int64, 0..K-1.
        index: [B] int64, the sample's row in its split's file, from 0.
    """

    pixel_values: Tensor
    labels: Tensor
    index: Tensor


class SegmentationBatch(TypedDict):
    """Images of one batch with their masks.

    Attributes:
        pixel_values: [B, 3, H, W] uint8, red, green, blue in 0..255.
        labels: [B, h, w] uint8, classes 0..K-1, or 255 where nothing is labelled.
        sizes: [B, 2] int64, height and width of each mask; what lies to the right of it and below
            is padding.
        index: [B] int64, the sample's row in its split's file, from 0.
    """

    pixel_values: Tensor
    labels: Tensor
    sizes: Tensor
    index: Tensor


class FeatureBatch(TypedDict):
    """What the frozen part of a network gave for the samples of one batch, read instead of the samples.

    Attributes:
        features: [B, C] vectors, [B, T, C] token states that are 0 behind their lengths, or [B,
            ...] a layer's input.
        lengths: [B] int64 number of tokens; only with token states.
        mirrored: Like `features`, of the mirror images; only where both are read.
        labels: [B] int64, 0..K-1.
        index: [B] int64, the sample's row in its split's file, from 0.
    """

    features: Tensor
    lengths: NotRequired[Tensor]
    mirrored: NotRequired[Tensor]
    labels: Tensor
    index: Tensor
