"""Embedding of token ids. `B` texts, `T` tokens, `C` hidden size, `V` vocabulary size."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_bert.network.attention import normal_initializer

PAD = 0  # id of the padding token, as in every published BERT


@keras.saving.register_keras_serializable(package="keras_bert")
class BertEmbedding(keras.layers.Layer):
    """Sum of token, position and segment embedding, followed by LayerNorm and dropout.

    Token id 0 is padding. The layer passes the padding mask on with its output.
    """

    def __init__(
        self,
        vocab_size: int,
        maxlen: int,
        hidden_size: int,
        num_segments: int = 2,
        drop_rate: float = 0.1,
        epsilon: float = 1e-12,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Store the sizes and create the sub-layers.

        Args:
            vocab_size: V.
            maxlen: Maximum text length in tokens.
            hidden_size: C.
            num_segments: Number of rows of the segment table.
            drop_rate: Dropout on the output, 0..1.
            epsilon: Epsilon of LayerNorm.
            kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.settings: dict[str, Any] = {
            "vocab_size": vocab_size,
            "maxlen": maxlen,
            "hidden_size": hidden_size,
            "num_segments": num_segments,
            "drop_rate": drop_rate,
            "epsilon": epsilon,
        }
        self.norm = keras.layers.LayerNormalization(
            epsilon=epsilon, dtype=self.dtype_policy, name="norm"
        )
        self.dropout = keras.layers.Dropout(drop_rate, dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the three tables and the weights of LayerNorm."""
        width = self.settings["hidden_size"]
        rows = {
            "token_table": "vocab_size",
            "position_table": "maxlen",
            "segment_table": "num_segments",
        }
        for name, size in rows.items():
            table = self.add_weight(
                name=name, shape=(self.settings[size], width), initializer=normal_initializer()
            )
            setattr(self, name, table)
        self.norm.build((*input_shape, width))
        self.built = True

    def call(self, input_ids: Any, token_type_ids: Any = None, training: bool | None = None) -> Any:  # noqa: ANN401, FBT001
        """Compute the embedding.

        Args:
            input_ids: [B, T] token ids, 0..V-1; 0 is padding.
            token_type_ids: [B, T] segment ids; None for segment 0 everywhere.
            training: Apply dropout.

        Returns:
            [B, T, C].

        Raises:
            ValueError: If an id is out of range or the text is too long. A TensorFlow graph raises
                InvalidArgumentError with the same message instead. XLA drops assertions, so a graph
                compiled by XLA raises nothing.
        """
        sizes = self.settings
        vocabulary, segments, maxlen = (
            sizes["vocab_size"] - 1,
            sizes["num_segments"] - 1,
            sizes["maxlen"],
        )
        length = _checked(
            ops.shape(input_ids)[1],
            maxlen,
            f"a text is longer than maxlen, {maxlen} tokens: truncate it",
        )
        message = f"an id in input_ids is outside 0..{vocabulary}: use the tokenizer of the model"
        hidden = ops.take(
            self._cast(self.token_table), _checked(input_ids, vocabulary, message), axis=0
        )
        hidden += self._cast(self.position_table)[:length]
        if token_type_ids is None:
            hidden += self._cast(self.segment_table)[0]
        else:
            segment_ids = _checked(
                token_type_ids,
                segments,
                f"a segment is outside 0..{segments}: correct token_type_ids",
            )
            hidden += ops.take(self._cast(self.segment_table), segment_ids, axis=0)
        return self.dropout(self.norm(hidden), training=training)

    def _cast(self, table: Any) -> Any:  # noqa: ANN401
        return ops.cast(table, self.compute_dtype)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:  # noqa: ANN401, ARG002
        """Return the mask [B, T], True for tokens other than padding."""
        return ops.not_equal(inputs, PAD)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), **self.settings}


def _checked(values: Any, highest: int, message: str) -> Any:  # noqa: ANN401
    """Return the values, checked to be in 0..highest.

    Known values are checked at once. In a graph, the returned tensor depends on an assertion.
    """
    if isinstance(values, int) or tf.executing_eagerly():
        array = np.asarray(values)
        invalid = array[(array < 0) | (array > highest)]
        if invalid.size:
            msg = f"{message}; found {invalid.flat[0]}"
            raise ValueError(msg)
        return values
    in_range = tf.reduce_all((values >= 0) & (values <= highest))
    parts = [message, "found between", tf.reduce_min(values), "and", tf.reduce_max(values)]
    with tf.control_dependencies([tf.debugging.Assert(in_range, parts)]):
        return tf.identity(values)
