"""Assignment of texts to batches, and the conversion of texts to tensors.

Shapes: `N` texts in all, `B` texts of a batch, `T` tokens.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Rows = NDArray[np.int64]

# Batches per pool; texts are sorted by length within a pool. Larger pools would put the same texts
# together in every epoch.
_POOL = 50


def epoch_batches(
    lengths: Sequence[int] | Rows, batch_size: int, rng: np.random.Generator
) -> list[Rows]:
    """Draw the batches of an epoch: random, but with texts of similar length in each batch.

    Args:
        lengths: [N] number of tokens of each text.
        batch_size: Texts per batch; one batch may be smaller.
        rng: Generator seeded with the seed of the run and the epoch.

    Returns:
        Row indices of each batch, ceil(N / batch_size) batches in random order.
    """
    order = rng.permutation(len(lengths))
    sizes = np.asarray(lengths)
    pools = [order[i : i + _POOL * batch_size] for i in range(0, len(order), _POOL * batch_size)]
    in_order = np.concatenate([pool[np.argsort(sizes[pool], kind="stable")] for pool in pools])
    batches = [in_order[i : i + batch_size] for i in range(0, len(in_order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def sorted_batches(lengths: Sequence[int] | Rows, batch_size: int) -> list[Rows]:
    """Return batches with every text once, shortest first, for evaluation in any order."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


@dataclass(frozen=True)
class Padding:
    """Rule for the padded length of a batch.

    Lengths are rounded up to a multiple, which keeps the number of different lengths small, and are
    limited to the model's maximum.

    Attributes:
        multiple: The multiple, in tokens.
        maxlen: Maximum input length of the model, in tokens.
    """

    multiple: int
    maxlen: int

    def width(self, longest: Any, least: Any = min) -> Any:  # noqa: ANN401 - a number or a tensor
        """Return the padded length of a batch whose longest text has `longest` tokens.

        `least` is the minimum function: `min` for numbers, `tf.minimum` for tensors.
        """
        return least(-(-longest // self.multiple) * self.multiple, self.maxlen)


def padding_share(lengths: Rows, batches: Sequence[Rows], padding: Padding) -> float:
    """Return the fraction of padding among the tokens of the batches, 0..1.

    Args:
        lengths: [N] number of tokens of each text, including special tokens.
        batches: Row indices of each batch.
        padding: Rule for the padded length of a batch.
    """
    total = sum(len(rows) * padding.width(int(lengths[rows].max())) for rows in batches)
    return float(round(1 - int(lengths.sum()) / total, 4))


@dataclass(frozen=True)
class TokenStore:
    """Token ids of many texts in one ragged tensor.

    Attributes:
        ragged: [N, (T)] int32 token ids.
        lengths: [N] number of tokens of each text.
    """

    ragged: tf.RaggedTensor
    lengths: Rows

    @classmethod
    def of(cls, texts: Iterable[Sequence[int]]) -> "TokenStore":
        """Store the token ids of each text, without [CLS] and [SEP]."""
        flat, sizes = array("i"), array("q")
        for text in texts:
            flat.extend(text)
            sizes.append(len(text))
        values, lengths = np.frombuffer(flat, np.int32), np.frombuffer(sizes, np.int64)
        return cls(tf.RaggedTensor.from_row_lengths(values, lengths), lengths)


def text_tensors(
    store: TokenStore,
    first: Any,  # noqa: ANN401 - tensors
    second: Any,  # noqa: ANN401
    special: tuple[int, int],
    padding: Padding,
) -> tuple[Any, Any]:
    """Build `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`, padded at the end.

    Args:
        store: The texts.
        first: [B] row indices of the first texts.
        second: [B] row indices of the second texts, or None.
        special: Ids of [CLS] and [SEP].
        padding: Rule for the padded length of a batch.

    Returns:
        input_ids and token_type_ids, [B, T] int32. Padding has token id 0 and segment 0; the second
        text and its [SEP] have segment 1.
    """
    start, end = (tf.fill([tf.shape(first)[0], 1], token) for token in special)
    a = tf.gather(store.ragged, first)
    before = tf.cast(a.row_lengths(), tf.int32) + 2
    parts, total = [start, a, end], before
    if second is not None:
        b = tf.gather(store.ragged, second)
        parts, total = [*parts, b, end], before + tf.cast(b.row_lengths(), tf.int32) + 1
    dense = tf.concat(parts, axis=1).to_tensor()
    length = tf.shape(dense)[1]
    padded = tf.pad(dense, [[0, 0], [0, padding.width(length, tf.minimum) - length]])
    positions = tf.range(tf.shape(padded)[1])
    segments = (positions >= before[:, None]) & (positions < total[:, None])
    return tf.ensure_shape(padded, [None, None]), tf.cast(segments, tf.int32)


def even_shares(rows: Any) -> Any:  # noqa: ANN401 - tensors
    """Return a tensor [B] of 1 / B for an input of shape [B]."""
    return tf.ones_like(rows, tf.float32) / tf.cast(tf.size(rows), tf.float32)


def pipeline(
    plans: Callable[[], Iterator[dict[str, Rows]]],
    to_tensors: Any,  # noqa: ANN401
    count: int,
) -> tf.data.Dataset:
    """Return a dataset that prefetches batches on background threads, in a fixed order.

    Args:
        plans: Returns a new iterator with one dict of arrays [B] per batch.
        to_tensors: Converts such a dict of int32 tensors into a batch.
        count: Number of batches.

    Returns:
        The dataset of batches.
    """
    signature = {name: tf.TensorSpec([None], tf.int32) for name in next(plans())}
    dataset = tf.data.Dataset.from_generator(plans, output_signature=signature)
    options = tf.data.Options()
    options.deterministic = True
    # Keras already splits each batch among the replicas, so the source must not be sharded as well.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    mapped = dataset.map(to_tensors, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    counted = mapped.prefetch(tf.data.AUTOTUNE).apply(
        tf.data.experimental.assert_cardinality(count)
    )
    return counted.with_options(options)
