"""Texts as batches of a classification, and what a classifier makes of them. `N` texts, `B` of them a batch, `K` classes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

from keras_bert.batching import (
    Padding,
    Rows,
    TokenStore,
    epoch_batches,
    even_shares,
    pipeline,
    sorted_batches,
    text_tensors,
)
from keras_bert.errors import KerasBertError
from keras_bert.metrics import predicted
from keras_bert.running import Start, special_pair
from keras_bert.tokenizing import encode

EVAL_BATCH = 64


@dataclass(frozen=True)
class TextData:
    """Texts as batches.

    Attributes:
        store: Tokens of each text, cut to what fits.
        special: Numbers of [CLS] and [SEP].
        labels: [N] numbers of classes; zeros where they are not known.
        padding: How far texts are padded.
    """

    store: TokenStore
    special: tuple[int, int]
    labels: Rows
    padding: Padding

    def training(self, epochs: range, batch_size: int, seed: int) -> tf.data.Dataset:
        """Batches (inputs, targets) of several epochs; what an epoch holds depends on seed and epoch alone."""

        def plans() -> Iterator[dict[str, Rows]]:
            return (
                {"rows": rows} for epoch in epochs for rows in self.order(epoch, batch_size, seed)
            )

        return pipeline(plans, self._tensors, len(epochs) * -(-len(self.labels) // batch_size))

    def order(self, epoch: int, batch_size: int, seed: int) -> list[Rows]:
        """Rows of each batch of an epoch."""
        return epoch_batches(self.store.lengths, batch_size, np.random.default_rng([seed, epoch]))

    def probabilities(
        self, model: keras.Model, batch_size: int = EVAL_BATCH
    ) -> NDArray[np.float64]:
        """[N, K] the classes' probabilities, in the texts' order.

        Args:
            model: A `Classifier`, or what trains one.
            batch_size: Texts at once.
        """
        batches = sorted_batches(self.store.lengths, batch_size)
        dataset = pipeline(
            lambda: iter([{"rows": rows} for rows in batches]), self._tensors, len(batches)
        )
        logits = np.asarray(
            model.predict(dataset.map(lambda inputs, _: inputs), verbose=0), dtype=np.float64
        )
        result = np.empty(logits.shape)
        result[np.concatenate(batches)] = tf.nn.softmax(tf.constant(logits), axis=1)
        return result

    def _tensors(self, plan: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        ids, segments = text_tensors(self.store, plan["rows"], None, self.special, self.padding)
        targets = {
            "labels": tf.gather(self.labels, plan["rows"]),
            "share": even_shares(plan["rows"]),
        }
        return {"input_ids": ids, "token_type_ids": segments}, targets


def text_data(texts: list[str], labels: list[int], begun: Start, padding: Padding) -> TextData:
    """Encode texts for a model.

    Args:
        texts: N texts.
        labels: N numbers of classes.
        begun: Tokenizer and sizes of the model.
        padding: How far texts are padded.

    Returns:
        The texts, cut to the model's longest input.

    Raises:
        KerasBertError: If nothing but [CLS] and [SEP] fits.
    """
    room = begun.bert["maxlen"] - 2
    if room < 1:
        msg = f"maxlen {begun.bert['maxlen']} has no room for a word: give more"
        raise KerasBertError(msg)
    tokens = [ids[:room] for ids in encode(begun.tokenizer, texts)]
    return TextData(
        TokenStore.of(tokens),
        special_pair(begun.tokenizer),
        np.array(labels, dtype=np.int64),
        padding,
    )


def prediction_table(
    probabilities: NDArray[np.float64], classes: list[str], texts: list[str]
) -> pd.DataFrame:
    """One row a text: prediction, probability of each class, text."""
    columns = {
        f"probability_{name}": probabilities[:, k].astype(np.float32)
        for k, name in enumerate(classes)
    }
    names = [classes[k] for k in predicted(probabilities)]
    return pd.DataFrame({"prediction": names, **columns, "text": texts})
