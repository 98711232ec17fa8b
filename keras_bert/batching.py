"""Which texts stand in which batch, and texts as tensors. `B` texts, `T` tokens."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Rows = NDArray[np.int64]

_POOL = 50  # batches in which texts are sorted by length; more of them would make orders repeat themselves


def epoch_batches(
    lengths: Sequence[int] | Rows, batch_size: int, rng: np.random.Generator
) -> list[Rows]:
    """Draw an epoch's batches: shuffled texts, of which neighbours in length stand together.

    Args:
        lengths: Tokens of each text.
        batch_size: Texts a batch; the last one may have fewer.
        rng: Seeded by run and epoch.

    Returns:
        Rows of each batch, the batches in random order. There are always as many: ceil(N /
        batch_size).
    """
    order = rng.permutation(len(lengths))
    sizes = np.asarray(lengths)
    pools = [order[i : i + _POOL * batch_size] for i in range(0, len(order), _POOL * batch_size)]
    in_order = np.concatenate([pool[np.argsort(sizes[pool], kind="stable")] for pool in pools])
    batches = [in_order[i : i + batch_size] for i in range(0, len(in_order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def sorted_batches(lengths: Sequence[int] | Rows, batch_size: int) -> list[Rows]:
    """Every text once, the short ones first: for evaluation, where order does not matter."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


@dataclass(frozen=True)
class Padding:
    """Lengths of batches: multiples of a number, so that there are few different ones, but no more than fit the model.

    Attributes:
        multiple: In tokens.
        maxlen: The model's longest text.
    """

    multiple: int
    maxlen: int

    def width(self, longest: Any, least: Any = min) -> Any:  # noqa: ANN401 - a number or a tensor
        """The length of a batch whose longest text has so many tokens."""
        return least(-(-longest // self.multiple) * self.multiple, self.maxlen)


def padding_share(lengths: Rows, batches: Sequence[Rows], padding: Padding) -> float:
    """Share of padding among the tokens of batches, 0..1.

    Args:
        lengths: Tokens of each text, special ones included.
        batches: Rows of each batch.
        padding: How far texts are padded.
    """
    total = sum(len(rows) * padding.width(int(lengths[rows].max())) for rows in batches)
    return float(round(1 - int(lengths.sum()) / total, 4))


@dataclass(frozen=True)
class TokenStore:
    """Many texts' tokens in one array.

    Attributes:
        ragged: [N, (T)] int32.
        lengths: [N] tokens of each.
    """

    ragged: tf.RaggedTensor
    lengths: Rows

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> "TokenStore":
        """Store the numbers of each text's tokens, without [CLS] and [SEP]."""
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        values = np.fromiter(
            (token for text in texts for token in text), dtype=np.int32, count=int(lengths.sum())
        )
        return cls(tf.RaggedTensor.from_row_lengths(values, lengths), lengths)


def text_tensors(
    store: TokenStore,
    first: Any,  # noqa: ANN401 - tensors
    second: Any,  # noqa: ANN401
    special: tuple[int, int],
    padding: Padding,
) -> tuple[Any, Any]:
    """[CLS] first [SEP], or [CLS] first [SEP] second [SEP], padded behind.

    Args:
        store: The texts.
        first: [B] rows.
        second: [B] rows, or None.
        special: Numbers of [CLS] and [SEP].
        padding: How far texts are padded.

    Returns:
        input_ids and token_type_ids, [B, T] int32: padding is token 0 and segment 0, the second
        text is segment 1.
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
    """[B] -> [B], 1 / B each."""
    return tf.ones_like(rows, tf.float32) / tf.cast(tf.size(rows), tf.float32)


def pipeline(
    plans: Callable[[], Iterator[dict[str, Rows]]],
    to_tensors: Any,  # noqa: ANN401
    count: int,
) -> tf.data.Dataset:
    """Turn planned batches into tensors on other threads, ahead of the training, in the same order every time.

    Args:
        plans: Gives dicts of arrays [B], one a batch, each time from the start.
        to_tensors: Makes a batch of such a dict, as int32.
        count: How many plans there are.

    Returns:
        The batches.
    """
    signature = {name: tf.TensorSpec([None], tf.int32) for name in next(plans())}
    dataset = tf.data.Dataset.from_generator(plans, output_signature=signature)
    options = tf.data.Options()
    options.deterministic = True
    # Keras shares each batch out among replicas; the files behind it are not to be.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    mapped = dataset.map(to_tensors, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    counted = mapped.prefetch(tf.data.AUTOTUNE).apply(
        tf.data.experimental.assert_cardinality(count)
    )
    return counted.with_options(options)
