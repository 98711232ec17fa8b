"""Classification data: batches of texts, and tables of predictions.

Shapes: `N` texts in all, `B` texts of a batch, `T` tokens, `K` classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

from keras_bert.data.batching import (
    Padding,
    Rows,
    TokenStore,
    epoch_batches,
    even_shares,
    pipeline,
    sorted_batches,
    text_tensors,
)
from keras_bert.data.tokenizing import encode, special_pair
from keras_bert.errors import KerasBertError
from keras_bert.training.metrics import predicted
from keras_bert.training.starting import Start

EVAL_BATCH = 64


@dataclass(frozen=True)
class TextData:
    """Texts and labels of a split, with methods that return batches.

    Attributes:
        store: Tokens of each text, truncated to the model's maximum.
        special: Ids of [CLS] and [SEP].
        labels: [N] class indices; zeros if the labels are unknown.
        padding: Rule for the padded length of a batch.
    """

    store: TokenStore
    special: tuple[int, int]
    labels: Rows
    padding: Padding

    def training(self, epochs: range, batch_size: int, seed: int) -> tf.data.Dataset:
        """Return the batches (inputs, targets) of several epochs in sequence.

        The batches of an epoch depend only on the seed and the epoch number.
        """

        def plans() -> Iterator[dict[str, Rows]]:
            return (
                {"rows": rows} for epoch in epochs for rows in self.order(epoch, batch_size, seed)
            )

        return pipeline(plans, self._tensors, len(epochs) * -(-len(self.labels) // batch_size))

    def order(self, epoch: int, batch_size: int, seed: int) -> list[Rows]:
        """Return the row indices of each batch of an epoch."""
        return epoch_batches(self.store.lengths, batch_size, np.random.default_rng([seed, epoch]))

    def probabilities(
        self, model: keras.Model, batch_size: int = EVAL_BATCH
    ) -> NDArray[np.float64]:
        """Return the probabilities of the classes [N, K], in the order of the texts.

        Args:
            model: A `Classifier`, or the `TrainableModel` that wraps it.
            batch_size: Texts per batch.
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


def text_data(
    texts: Iterable[str], labels: npt.ArrayLike, begun: Start, padding: Padding
) -> TextData:
    """Encode texts for a model.

    Args:
        texts: N texts.
        labels: N class indices.
        begun: Tokenizer and sizes of the model.
        padding: Rule for the padded length of a batch.

    Returns:
        The texts, truncated to the model's maximum length.

    Raises:
        KerasBertError: If only [CLS] and [SEP] fit the model.
    """
    max_tokens = begun.bert["maxlen"] - 2
    if max_tokens < 1:
        msg = (
            f"maxlen {begun.bert['maxlen']} is too short for text between the special tokens; "
            "raise --maxlen"
        )
        raise KerasBertError(msg)
    tokens = (ids[:max_tokens] for ids in encode(begun.tokenizer, texts))
    return TextData(
        TokenStore.of(tokens),
        special_pair(begun.tokenizer),
        np.asarray(labels, dtype=np.int64),
        padding,
    )


def prediction_table(
    probabilities: NDArray[np.float64], classes: list[str], texts: Sequence[str]
) -> pd.DataFrame:
    """Return a table with the prediction, the class probabilities and the text of each row."""
    columns = {
        f"probability_{name}": probabilities[:, k].astype(np.float32)
        for k, name in enumerate(classes)
    }
    names = [classes[k] for k in predicted(probabilities)]
    return pd.DataFrame({"prediction": names, **columns, "text": list(texts)})
