"""Typed batches that a datamodule passes to a task.

`B` samples, `T` tokens, `C` channels, `H` x `W` pixels, `K` classes.
"""

from typing import NotRequired, TypedDict

from torch import Tensor

IGNORE_INDEX = 255  # label of unlabelled pixels and of padding


class TextBatch(TypedDict):
    """A batch of texts, padded on the right to the longest.

    Attributes:
        input_ids: [B, T] int64 token ids.
        attention_mask: [B, T] int64, 1 for tokens and 0 for padding; all ones precede all zeros.
        labels: [B] int64 classes 0..K-1; [B, K] float32, 0 or 1 for each label; or [B] float32
            numbers.
        index: [B] int64, row of each sample in the file of its split, from 0.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    index: Tensor


class ImageBatch(TypedDict):
    """A batch of images of one size; the network resizes and normalises them.

    Attributes:
        pixel_values: [B, 3, H, W] uint8, red, green, blue in 0..255.
        labels: [B] int64 classes 0..K-1; [B, K] float32, 0 or 1 for each label; or [B] float32
            numbers.
        index: [B] int64, row of each sample in the file of its split, from 0.
    """

    pixel_values: Tensor
    labels: Tensor
    index: Tensor


class SegmentationBatch(TypedDict):
    """A batch of images with their masks.

    Attributes:
        pixel_values: [B, 3, H, W] uint8, red, green, blue in 0..255.
        labels: [B, h, w] uint8, classes 0..K-1, or 255 for unlabelled pixels and padding.
        sizes: [B, 2] int64, height and width of each mask; pixels to the right and below are
            padding.
        index: [B] int64, row of each sample in the file of its split, from 0.
    """

    pixel_values: Tensor
    labels: Tensor
    sizes: Tensor
    index: Tensor


class FeatureBatch(TypedDict):
    """Stored outputs of the frozen part of a network, read in place of a batch of samples.

    Attributes:
        features: [B, C] vectors; [B, T, C] token features, 0 after the last token of each text; or
            [B, ...] inputs of a layer.
        lengths: [B] int64 number of tokens; only with token features.
        mirrored: Features of the mirrored images, shaped like `features`; only if both views are
            read.
        labels: [B] int64 classes 0..K-1; [B, K] float32, 0 or 1 for each label; or [B] float32
            numbers.
        index: [B] int64, row of each sample in the file of its split, from 0.
    """

    features: Tensor
    lengths: NotRequired[Tensor]
    mirrored: NotRequired[Tensor]
    labels: Tensor
    index: Tensor
