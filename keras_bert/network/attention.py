"""Multi-head self-attention. `B` texts, `T` tokens, `C` hidden size, `A` heads."""

from typing import Any

import keras
from keras import ops

_PADDING_SCORE = -1e9


def normal_initializer() -> keras.initializers.Initializer:
    """Return the initializer of all matrices.

    It is a normal distribution with standard deviation 0.02, truncated at two standard deviations
    (BERT, appendix A.2, and the released code).
    """
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable(package="keras_bert")
class MultiHeadAttention(keras.layers.Layer):
    """Multi-head self-attention with an output projection.

    Each head computes softmax(Q K' / sqrt(C / A) - 1e9 * padding) V. The output projection is
    applied to the concatenated heads.

    Vaswani et al., Attention is all you need (NeurIPS 2017, arXiv 1706.03762), section 3.2.2.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        drop_rate: float = 0.0,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Store the sizes and create the sub-layers.

        Args:
            hidden_size: C.
            num_heads: A.
            drop_rate: Dropout on the attention weights, 0..1.
            kwargs: Passed to `keras.layers.Layer`.

        Raises:
            ValueError: If C is not a multiple of A.
        """
        super().__init__(**kwargs)
        if num_heads < 1 or hidden_size % num_heads:
            msg = (
                f"hidden_size {hidden_size} cannot be divided among {num_heads} heads: "
                "give a multiple of the number of heads"
            )
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
        """Create the weights of the four projections, each from C to C."""
        for dense in (self.query, self.key, self.value, self.output_projection):
            dense.build((*input_shape[:-1], self.hidden_size))
        self.built = True

    def call(
        self,
        hidden: Any,  # noqa: ANN401 - Keras has no type for a tensor
        mask: Any = None,  # noqa: ANN401
        training: bool | None = None,  # noqa: FBT001 - Keras's signature
        return_attention_scores: bool = False,  # noqa: FBT001, FBT002 - name as in Keras
    ) -> Any:  # noqa: ANN401
        """Apply self-attention.

        Args:
            hidden: [B, T, C].
            mask: [B, T], False for padding; no token attends to padding.
            training: Apply dropout to the attention weights.
            return_attention_scores: Return the attention weights too.

        Returns:
            [B, T, C]. With `return_attention_scores` also the weights before dropout [B, A, T, T],
            whose rows sum to 1.
        """
        query, key, value = (
            self._split(dense(hidden)) for dense in (self.query, self.key, self.value)
        )
        scale = (self.hidden_size // self.num_heads) ** -0.5
        # The softmax sums many small numbers, so it is computed in float32 at any precision.
        scores = ops.cast(ops.matmul(query * scale, ops.transpose(key, (0, 1, 3, 2))), "float32")
        if mask is not None:
            scores += _PADDING_SCORE * ops.cast(ops.logical_not(mask), "float32")[:, None, None, :]
        weights = ops.softmax(scores, axis=-1)
        dropped = self.dropout(ops.cast(weights, self.compute_dtype), training=training)
        context = ops.transpose(ops.matmul(dropped, value), (0, 2, 1, 3))
        output = self.output_projection(ops.reshape(context, ops.shape(hidden)))
        return (output, weights) if return_attention_scores else output

    def _split(self, states: Any) -> Any:  # noqa: ANN401
        """Reshape [B, T, C] to [B, A, T, C / A]."""
        batch, length = ops.shape(states)[:2]
        heads = (batch, length, self.num_heads, self.hidden_size // self.num_heads)
        return ops.transpose(ops.reshape(states, heads), (0, 2, 1, 3))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:  # noqa: ANN401, ARG002
        """Return the mask unchanged."""
        return previous_mask

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        own = {
            "hidden_size": self.hidden_size,
            "num_heads": self.num_heads,
            "drop_rate": self.drop_rate,
        }
        return {**super().get_config(), **own}
