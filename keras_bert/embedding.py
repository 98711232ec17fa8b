"""From token numbers to vectors. `B` texts, `T` tokens, `C` hidden size, `V` vocabulary."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_bert.attention import normal_initializer

PAD = 0  # the padding token's number, as in every published BERT


@keras.saving.register_keras_serializable(package="keras_bert")
class BertEmbedding(keras.layers.Layer):
    """Sum of a token's, its position's and its segment's vector, with LayerNorm and dropout behind it.

    Token 0 is padding: it makes the mask that travels with the output.
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
        """State the sizes.

        Args:
            vocab_size: V.
            maxlen: The longest text, in tokens.
            hidden_size: C.
            num_segments: Rows of the segment table.
            drop_rate: 0..1.
            epsilon: Of the norm.
            kwargs: Of any Keras layer.
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
        """Make the three tables."""
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
        """Look the tokens up.

        Args:
            input_ids: [B, T] numbers of tokens, 0..V-1; 0 is padding.
            token_type_ids: [B, T] numbers of segments; all of them 0 where not given.
            training: Whether values are dropped.

        Returns:
            [B, T, C].

        Raises:
            ValueError: If a number is out of range or the text is too long. Where the graph is
                already built it is TensorFlow's InvalidArgumentError, of the same words; compiled
                by XLA, which drops assertions, there is none.
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
            f"a text is longer than maxlen, {maxlen} tokens: cut it",
        )
        words = (
            f"a number of input_ids is outside 0..{vocabulary}: is this the tokenizer of the model?"
        )
        hidden = ops.take(
            self._cast(self.token_table), _checked(input_ids, vocabulary, words), axis=0
        )
        hidden += self._cast(self.position_table)[:length]
        if token_type_ids is None:
            hidden += self._cast(self.segment_table)[0]
        else:
            given = _checked(token_type_ids, segments, f"a segment is outside 0..{segments}")
            hidden += ops.take(self._cast(self.segment_table), given, axis=0)
        return self.dropout(self.norm(hidden), training=training)

    def _cast(self, table: Any) -> Any:  # noqa: ANN401
        return ops.cast(table, self.compute_dtype)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:  # noqa: ANN401, ARG002
        """[B, T], True at real tokens."""
        return ops.not_equal(inputs, PAD)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {**super().get_config(), **self.settings}


def _checked(values: Any, highest: int, message: str) -> Any:  # noqa: ANN401
    """Raise at once where the values are known; where they are not yet, put an assertion before whatever uses them."""
    if isinstance(values, int) or tf.executing_eagerly():
        array = np.asarray(values)
        wrong = array[(array < 0) | (array > highest)]
        if wrong.size:
            msg = f"{message}; found {wrong.flat[0]}"
            raise ValueError(msg)
        return values
    within = tf.reduce_all((values >= 0) & (values <= highest))
    found = [message, "found between", tf.reduce_min(values), "and", tf.reduce_max(values)]
    with tf.control_dependencies([tf.debugging.Assert(within, found)]):
        return tf.identity(values)
