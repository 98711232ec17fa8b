"""Multi-head self-attention. `B` texts, `T` tokens, `C` hidden size, `A` heads."""

from typing import Any

import keras
from keras import ops

_MASKED = -1e9


def normal_initializer() -> keras.initializers.Initializer:
    """Of every matrix: a normal distribution of deviation 0.02, cut at two deviations (BERT, appendix A.2's released code)."""
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable(package="keras_bert")
class MultiHeadAttention(keras.layers.Layer):
    """softmax(Q K' / sqrt(C / A) - 1e9 * padding) V in each head, and a last projection of all heads side by side.

    Vaswani et al., Attention is all you need (NeurIPS 2017, arXiv 1706.03762), section 3.2.2.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        drop_rate: float = 0.0,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """State the sizes.

        Args:
            hidden_size: C.
            num_heads: A.
            drop_rate: Of dropout on the attention weights, 0..1.
            kwargs: Of any Keras layer.

        Raises:
            ValueError: If C is no multiple of A.
        """
        super().__init__(**kwargs)
        if num_heads < 1 or hidden_size % num_heads:
            msg = f"hidden_size {hidden_size} cannot be divided among {num_heads} heads: give a multiple of the number of heads"
            raise ValueError(msg)
        self.hidden_size, self.num_heads, self.drop_rate = hidden_size, num_heads, drop_rate
        self.supports_masking = True
        for name in ("query", "key", "value", "output_projection"):
            dense = keras.layers.Dense(
                hidden_size,
                kernel_initializer=normal_initializer(),
                dtype=self.dtype_policy,
                name=name,
            )
            setattr(self, name, dense)
        self.dropout = keras.layers.Dropout(drop_rate, dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the four projections of vectors of C numbers."""
        for dense in (self.query, self.key, self.value, self.output_projection):
            dense.build((*input_shape[:-1], self.hidden_size))
        self.built = True

    def call(
        self,
        hidden: Any,  # noqa: ANN401 - Keras has no type for a tensor
        mask: Any = None,  # noqa: ANN401
        training: bool | None = None,  # noqa: FBT001 - Keras's signature
        return_attention_scores: bool = False,  # noqa: FBT001, FBT002 - as Keras's own attention names it
    ) -> Any:  # noqa: ANN401
        """Let every token read every real token.

        Args:
            hidden: [B, T, C].
            mask: [B, T], False where there is padding; nothing reads it.
            training: Whether weights are dropped.
            return_attention_scores: Whether the attention weights are given too.

        Returns:
            [B, T, C], and where asked for [B, A, T, T], rows of which sum to 1.
        """
        query, key, value = (
            self._split(dense(hidden)) for dense in (self.query, self.key, self.value)
        )
        scale = (self.hidden_size // self.num_heads) ** -0.5
        # Sums of many small numbers, in float32 whatever the rest is computed in.
        scores = ops.cast(ops.matmul(query * scale, ops.transpose(key, (0, 1, 3, 2))), "float32")
        if mask is not None:
            scores += _MASKED * ops.cast(ops.logical_not(mask), "float32")[:, None, None, :]
        weights = ops.softmax(scores, axis=-1)
        dropped = self.dropout(ops.cast(weights, self.compute_dtype), training=training)
        read = ops.transpose(ops.matmul(dropped, value), (0, 2, 1, 3))
        output = self.output_projection(ops.reshape(read, ops.shape(hidden)))
        return (output, weights) if return_attention_scores else output

    def _split(self, states: Any) -> Any:  # noqa: ANN401
        """[B, T, C] -> [B, A, T, C / A]."""
        batch, length = ops.shape(states)[:2]
        heads = (batch, length, self.num_heads, self.hidden_size // self.num_heads)
        return ops.transpose(ops.reshape(states, heads), (0, 2, 1, 3))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:  # noqa: ANN401, ARG002
        """Padding stays padding."""
        return previous_mask

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        own = {
            "hidden_size": self.hidden_size,
            "num_heads": self.num_heads,
            "drop_rate": self.drop_rate,
        }
        return {**super().get_config(), **own}
