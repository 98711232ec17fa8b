"""Pretraining data: pieces of text, or pairs of pieces, with new masks in every epoch.

Shapes: `N` pieces, `E` examples, `B` examples of a batch, `T` tokens, `P` masked positions.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import Any

import numpy as np
import tensorflow as tf
from tokenizers import Tokenizer

from keras_bert.data.batching import (
    Padding,
    Rows,
    TokenStore,
    epoch_batches,
    even_shares,
    padding_share,
    pipeline,
    sorted_batches,
    text_tensors,
)
from keras_bert.data.masking import Masking
from keras_bert.data.tokenizing import encode
from keras_bert.errors import KerasBertError

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# The epoch number in the seeds of validation, so that its masks are always the same.
_VALIDATION = 2**31 - 1
_NO_PIECE = -1
# A prime above the number of batches per epoch, so that all batches of a run have different seeds.
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class Pieces:
    """Texts split into pieces that fit the model, in document order.

    Attributes:
        store: Tokens of each piece.
        document: [N] document index of each piece, in ascending order.
        first: [E] piece index of each example. These are all pieces; for next-sentence prediction,
            only pieces with a following piece in the same document.
    """

    store: TokenStore
    document: Rows
    first: Rows

    def draw(self, seed: Sequence[int], *, next_sentence: bool) -> tuple[Rows, Rows, Rows]:
        """Draw the second piece of each example.

        Args:
            seed: Seed of the run, and the epoch.
            next_sentence: Draw second pieces; otherwise examples have one piece.

        Returns:
            Three arrays. [E] index of the second piece: the following piece or, with probability
            one half, a piece of another document; -1 without `next_sentence`. [E] label: 0 for the
            following piece, 1 for a piece of another document. [E] number of tokens of the example,
            without special tokens.
        """
        if not next_sentence:
            return (
                np.full(len(self.first), _NO_PIECE),
                np.zeros(len(self.first), np.int64),
                self.store.lengths[self.first],
            )
        rng = np.random.default_rng([*seed, 1])
        replaced = rng.random(len(self.first)) < 1 / 2
        # The pieces of a document are adjacent. Draws at or after its first piece are shifted by
        # its number of pieces. This excludes the document itself.
        starts = np.searchsorted(self.document, self.document[self.first], side="left")
        ends = np.searchsorted(self.document, self.document[self.first], side="right")
        drawn = rng.integers(0, len(self.document) - (ends - starts))
        others = np.where(drawn < starts, drawn, drawn + ends - starts)
        second = np.where(replaced, others, self.first + 1)
        return (
            second,
            replaced.astype(np.int64),
            self.store.lengths[self.first] + self.store.lengths[second],
        )


def split_into_pieces(
    documents: Sequence[Sequence[str]], tokenizer: Tokenizer, maxlen: int, *, next_sentence: bool
) -> Pieces:
    """Split texts into pieces that fit the model, without dropping tokens.

    Args:
        documents: Texts of each document.
        tokenizer: Tokenizer of the model.
        maxlen: Maximum input length of the model in tokens.
        next_sentence: Make pieces of which two fit into one input. Texts are then split into
            sentences first.

    Returns:
        The pieces, in the order of the texts.

    Raises:
        KerasBertError: If `maxlen` is too small, or if the texts contain no example.
    """
    max_tokens = (maxlen - 3) // 2 if next_sentence else maxlen - 2
    if max_tokens < 1:
        msg = f"maxlen {maxlen} is too short for text between the special tokens; raise --maxlen"
        raise KerasBertError(msg)
    first_copy, second_copy = tee(
        (number, sentence)
        for number, document in enumerate(documents)
        for text in document
        for sentence in (_SENTENCE_END.split(text) if next_sentence else [text])
        if sentence
    )
    tokens = encode(tokenizer, (sentence for _, sentence in first_copy))
    owners = array("q")  # document of each piece

    def pieces() -> Iterator[list[int]]:
        for ids, (number, _) in zip(tokens, second_copy, strict=True):
            for start in range(0, len(ids), max_tokens):
                owners.append(number)
                yield ids[start : start + max_tokens]

    store = TokenStore.of(pieces())
    owners_of = np.array(owners, dtype=np.int64)
    first = (
        np.flatnonzero(owners_of[:-1] == owners_of[1:])
        if next_sentence
        else np.arange(len(owners_of))
    )
    if not len(first) or (next_sentence and owners_of[0] == owners_of[-1]):
        least = "two documents, one of them with two sentences" if next_sentence else "one text"
        msg = f"no example was found in the text; give at least {least}"
        raise KerasBertError(msg)
    return Pieces(store, owners_of, first)


@dataclass(frozen=True)
class PretrainingData:
    """Batches of one split.

    Attributes:
        pieces: The pieces of the split.
        masking: The masking of tokens.
        special: Ids of [CLS] and [SEP].
        next_sentence: Examples are pairs of pieces.
        batch_size: Examples per batch.
        seed: Seed of the order, the pairs and the masks.
        padding: Rule for the padded length of a batch.
    """

    pieces: Pieces
    masking: Masking
    special: tuple[int, int]
    next_sentence: bool
    batch_size: int
    seed: int
    padding: Padding

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return -(-len(self.pieces.first) // self.batch_size)

    def padding_share(self) -> float:
        """Return the fraction of padding among the tokens of the first epoch, 0..1."""
        _, _, lengths = self.pieces.draw((self.seed, 0), next_sentence=self.next_sentence)
        batches = epoch_batches(lengths, self.batch_size, np.random.default_rng([self.seed, 0]))
        return padding_share(lengths + (3 if self.next_sentence else 2), batches, self.padding)

    def training(self, epochs: Sequence[int]) -> tf.data.Dataset:
        """Return the batches of several epochs in sequence.

        The batches of an epoch depend only on the seed and the epoch number.

        Returns:
            Pairs of inputs and targets. The inputs are `input_ids`, `token_type_ids` and
            `masked_positions`. `measure_pretraining` describes the targets.
        """
        return pipeline(
            lambda: (plan for e in epochs for plan in self._plans(e)),
            self._tensors,
            self.steps * len(epochs),
        )

    def validation(self) -> tf.data.Dataset:
        """Return every example once; masks and pairs are the same in each call."""
        return pipeline(lambda: self._plans(_VALIDATION), self._tensors, self.steps)

    def _plans(self, epoch: int) -> Iterator[dict[str, Any]]:
        second, label, lengths = self.pieces.draw(
            (self.seed, epoch), next_sentence=self.next_sentence
        )
        if epoch == _VALIDATION:
            batches = sorted_batches(lengths, self.batch_size)
        else:
            batches = epoch_batches(
                lengths, self.batch_size, np.random.default_rng([self.seed, epoch])
            )
        for number, rows in enumerate(batches):
            masks = (self.seed, (epoch * _SEED_STRIDE + number) % 2**31)
            plan = {
                "first": self.pieces.first[rows],
                "second": second[rows],
                "nsp": label[rows],
                "seed": np.array(masks),
            }
            yield {name: values.astype(np.int32) for name, values in plan.items()}

    def _tensors(self, plan: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        second = plan["second"] if self.next_sentence else None
        ids, segments = text_tensors(
            self.pieces.store, plan["first"], second, self.special, self.padding
        )
        masked, positions, hidden, chosen = self.masking(ids, plan["seed"])
        # The shares refer to the whole batch. A replica receives only a part of it and could not
        # compute them.
        targets = {
            "mlm": hidden,
            "chosen": chosen,
            "share": tf.math.divide_no_nan(chosen, tf.reduce_sum(chosen)),
        }
        if self.next_sentence:
            targets |= {"nsp": plan["nsp"], "nsp_share": even_shares(plan["nsp"])}
        return {
            "input_ids": masked,
            "token_type_ids": segments,
            "masked_positions": positions,
        }, targets


def unigram_entropy(batches: tf.data.Dataset) -> float:
    """Return the entropy of the frequency distribution of the chosen tokens, in nats.

    It is a lower bound of the loss of any model that ignores the context, because the entropy uses
    the exact frequencies of these tokens.
    """
    hidden = np.concatenate([y["mlm"].numpy()[y["chosen"].numpy() > 0] for _, y in batches])
    share = np.unique(hidden, return_counts=True)[1] / len(hidden)
    return float(-(share * np.log(share)).sum())
