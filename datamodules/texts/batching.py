"""Padded batches of texts of similar length."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batches import TextBatch
from datamodules.batching.order import EvaluationBatches, Positions, TrainingBatches
from datamodules.texts.tokenizing import TokenIds

# Number of batches per random pool. Smaller pools leave more padding; larger pools mix less.
POOL_BATCHES = 50


class TokenizedTexts(Dataset[tuple[Tensor, Any, int]]):
    """Token ids of a split in one tensor, with labels and rows in the file."""

    def __init__(self, ids: TokenIds, labels: npt.ArrayLike, indices: npt.ArrayLike) -> None:
        self.lengths = ids.lengths
        self.ends = np.cumsum(self.lengths)
        self.flat = torch.from_numpy(ids.flat)
        self.truncated, self.unknown = ids.truncated, ids.unknown
        self.labels, self.indices = np.asarray(labels), np.asarray(indices)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, Any, int]:
        """Return token ids [T] int32, label, and row in the file."""
        end = int(self.ends[position])
        return (
            self.flat[end - int(self.lengths[position]) : end],
            self.labels[position],
            self.indices[position],
        )


class PadCollator:
    """Collate function that pads texts on the right to the longest of the batch."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, samples: Sequence[tuple[Tensor, Any, int]]) -> TextBatch:
        """Return a batch of the samples."""
        ids, labels, indices = zip(*samples, strict=True)
        lengths = torch.tensor([len(row) for row in ids])
        input_ids = torch.nn.utils.rnn.pad_sequence(
            list(ids), batch_first=True, padding_value=self.pad_id
        )
        mask = torch.arange(input_ids.shape[1]) < lengths[:, None]
        return TextBatch(
            input_ids=input_ids.long(),
            attention_mask=mask.long(),
            labels=torch.from_numpy(np.stack(labels)),
            index=torch.from_numpy(np.stack(indices)),
        )


class LengthBuckets(TrainingBatches):
    """Batches of texts of similar length, in random order.

    The permutation of each epoch is cut into pools of `POOL_BATCHES` batches. Each pool is sorted
    by length and cut into batches. The batches of all pools are then shuffled.
    """

    def __init__(self, lengths: npt.NDArray[np.int64], batch_size: int, seed: int) -> None:
        super().__init__(math.ceil(len(lengths) / batch_size), seed)
        self.lengths = lengths
        self.batch_size = batch_size

    def batches(self) -> list[Positions]:
        """Return all batches of this epoch."""
        rng = self.sampler.generator()
        order = rng.permutation(len(self.lengths))
        pool = self.batch_size * POOL_BATCHES
        batches: list[Positions] = []
        for start in range(0, len(order), pool):
            members = order[start : start + pool]
            members = members[np.argsort(self.lengths[members], kind="stable")]
            batches += [
                members[i : i + self.batch_size] for i in range(0, len(members), self.batch_size)
            ]
        return [batches[i] for i in rng.permutation(len(batches))]


def longest_first(lengths: npt.NDArray[np.int64], batch_size: int) -> EvaluationBatches:
    """Return evaluation batches of all samples, longest first."""
    return EvaluationBatches(np.argsort(-lengths, kind="stable"), batch_size)


def padded_tokens(batches: Sequence[Positions], lengths: npt.NDArray[np.int64]) -> int:
    """Return the number of tokens of the padded batches, padding included."""
    return sum(len(batch) * int(lengths[batch].max()) for batch in batches)


def padding_share(batches: Sequence[Positions], lengths: npt.NDArray[np.int64]) -> float:
    """Return the share of padding among all tokens of the padded batches, 0..1."""
    filled = sum(int(lengths[batch].sum()) for batch in batches)
    total = padded_tokens(batches, lengths)
    return 1 - filled / total if total else 0.0
