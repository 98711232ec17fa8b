"""What a BERT is pretrained on: pieces of text, pairs of them, masked anew in every epoch."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tokenizers import Tokenizer

from keras_bert.batching import (
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
from keras_bert.errors import KerasBertError
from keras_bert.masking import Masking
from keras_bert.tokenizing import encode

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_VALIDATION = (
    2**31 - 1
)  # in the place of an epoch in seeds: validation is masked the same way every time
_NOTHING = -1
_MOST_BATCHES = 1_000_003  # of an epoch, for seeds that differ; a prime


@dataclass(frozen=True)
class Pieces:
    """Texts cut to what fits, with what follows what.

    Attributes:
        store: Tokens of each piece.
        document: [N] number of the document that each stands in, rising.
        first: [E] pieces that make an example: all, or for next sentences those that another piece
            of the document follows.
    """

    store: TokenStore
    document: Rows
    first: Rows

    def draw(self, seed: Sequence[int], *, next_sentence: bool) -> tuple[Rows, Rows, Rows]:
        """Draw what stands behind each example's first piece.

        Args:
            seed: Of run and epoch.
            next_sentence: Whether anything does.

        Returns:
            [E] the second pieces, the true next one or, half of the time, one of another document;
            [E] 0 where it follows and 1 where it does not; [E] tokens of both.
        """
        if not next_sentence:
            return (
                np.full(len(self.first), _NOTHING),
                np.zeros(len(self.first), np.int64),
                self.store.lengths[self.first],
            )
        rng = np.random.default_rng([*seed, 1])
        random = rng.random(len(self.first)) < 1 / 2
        # Pieces of a document stand side by side: skipping its own is adding their number.
        starts = np.searchsorted(self.document, self.document[self.first], side="left")
        ends = np.searchsorted(self.document, self.document[self.first], side="right")
        drawn = rng.integers(0, len(self.document) - (ends - starts))
        others = np.where(drawn < starts, drawn, drawn + ends - starts)
        second = np.where(random, others, self.first + 1)
        return (
            second,
            random.astype(np.int64),
            self.store.lengths[self.first] + self.store.lengths[second],
        )


def cut(
    documents: Sequence[Sequence[str]], tokenizer: Tokenizer, maxlen: int, *, next_sentence: bool
) -> Pieces:
    """Cut texts into pieces that fit; nothing of them is lost.

    Args:
        documents: Texts of each document.
        tokenizer: Their tokenizer.
        maxlen: Tokens of the model's longest input.
        next_sentence: Whether two pieces have to fit side by side; texts are then split into
            sentences.

    Returns:
        The pieces, in order.

    Raises:
        KerasBertError: If there is no example in them.
    """
    room = (maxlen - 3) // 2 if next_sentence else maxlen - 2
    if room < 1:
        msg = f"maxlen {maxlen} has no room for a word: give more"
        raise KerasBertError(msg)
    texts, owners = [], []
    for number, document in enumerate(documents):
        sentences = [
            s
            for text in document
            for s in (_SENTENCE_END.split(text) if next_sentence else [text])
            if s
        ]
        texts += sentences
        owners += [number] * len(sentences)
    tokens, document_of = [], []
    for ids, owner in zip(encode(tokenizer, texts), owners, strict=True):
        parts = [ids[i : i + room] for i in range(0, len(ids), room)]
        tokens += parts
        document_of += [owner] * len(parts)
    owners_of = np.array(document_of, dtype=np.int64)
    first = (
        np.flatnonzero(owners_of[:-1] == owners_of[1:]) if next_sentence else np.arange(len(tokens))
    )
    if not len(first) or (next_sentence and owners_of[0] == owners_of[-1]):
        need = "two documents, and one of two sentences," if next_sentence else "a text"
        msg = f"the text has no example to learn from: it needs {need} at least"
        raise KerasBertError(msg)
    return Pieces(TokenStore.of(tokens), owners_of, first)


@dataclass(frozen=True)
class PretrainingData:
    """A split as batches.

    Attributes:
        pieces: The text.
        masking: How tokens are hidden.
        special: Numbers of [CLS] and [SEP].
        next_sentence: Whether examples are pairs.
        batch_size: Examples a batch.
        seed: Of order, pairs and masks.
        padding: How far texts are padded.
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
        """Batches an epoch."""
        return -(-len(self.pieces.first) // self.batch_size)

    def padding_share(self) -> float:
        """Share of padding in the first epoch's batches, 0..1."""
        _, _, lengths = self.pieces.draw((self.seed, 0), next_sentence=self.next_sentence)
        batches = epoch_batches(lengths, self.batch_size, np.random.default_rng([self.seed, 0]))
        return padding_share(lengths + (3 if self.next_sentence else 2), batches, self.padding)

    def training(self, epochs: Sequence[int]) -> tf.data.Dataset:
        """Batches of several epochs, one behind the other; what an epoch holds depends on seed and epoch alone.

        Returns:
            Pairs of inputs (`input_ids`, `token_type_ids`, `masked_positions`) and targets (see
            `measure_pretraining`; of pairs `nsp` is 0 where the second text follows).
        """
        return pipeline(
            lambda: (plan for e in epochs for plan in self._plans(e)),
            self._tensors,
            self.steps * len(epochs),
        )

    def validation(self) -> tf.data.Dataset:
        """Every example once, with masks and pairs that are always the same."""
        return pipeline(lambda: self._plans(_VALIDATION), self._tensors, self.steps)

    def _plans(self, epoch: int) -> Iterator[dict[str, Any]]:
        second, follows, lengths = self.pieces.draw(
            (self.seed, epoch), next_sentence=self.next_sentence
        )
        if epoch == _VALIDATION:
            batches = sorted_batches(lengths, self.batch_size)
        else:
            batches = epoch_batches(
                lengths, self.batch_size, np.random.default_rng([self.seed, epoch])
            )
        for number, rows in enumerate(batches):
            masks = (self.seed, (epoch * _MOST_BATCHES + number) % 2**31)
            plan = {
                "first": self.pieces.first[rows],
                "second": second[rows],
                "nsp": follows[rows],
                "seed": np.array(masks),
            }
            yield {name: values.astype(np.int32) for name, values in plan.items()}

    def _tensors(self, plan: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        second = plan["second"] if self.next_sentence else None
        ids, segments = text_tensors(
            self.pieces.store, plan["first"], second, self.special, self.padding
        )
        masked, positions, hidden, chosen = self.masking(ids, plan["seed"])
        # Of the whole batch: replicas, which get parts of it, could not tell.
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
    """Entropy of the distribution of the chosen tokens themselves, in nats.

    No model that looks at frequencies alone can have a lower loss on them: this one knows their
    frequencies beforehand.
    """
    hidden = np.concatenate([y["mlm"].numpy()[y["chosen"].numpy() > 0] for _, y in batches])
    share = np.unique(hidden, return_counts=True)[1] / len(hidden)
    return float(-(share * np.log(share)).sum())
