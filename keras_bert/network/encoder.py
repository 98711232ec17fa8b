"""Encoder block and its parts. `B` texts, `T` tokens, `C` hidden size, `A` heads."""

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_bert.network.attention import MultiHeadAttention, normal_initializer

_TANH_FACTOR = 0.044715


@keras.saving.register_keras_serializable(package="keras_bert")
def gelu(x: Any, approximate: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - the usual signature
    """Gaussian error linear unit: x * Phi(x), Phi being the standard normal distribution function.

    Hendrycks & Gimpel, arXiv 1606.08415.

    Args:
        x: Tensor of any shape.
        approximate: False for x / 2 * (1 + erf(x / sqrt 2)). True for the paper's approximation
            with tanh, which differs by up to 5e-4.

    Returns:
        A tensor of the same shape and dtype.
    """
    x = ops.convert_to_tensor(x)
    if approximate:
        inner = math.sqrt(2 / math.pi) * (x + _TANH_FACTOR * x * x * x)
        return 0.5 * x * (1 + ops.tanh(inner))
    return _exact_gelu(x)


@tf.custom_gradient
def _exact_gelu(x: Any) -> Any:  # noqa: ANN401
    """Compute x Phi(x) with its derivative Phi(x) + x phi(x).

    TensorFlow's automatic derivative would take more passes over memory.
    """
    cdf = 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))

    def gradient(upstream: Any) -> Any:  # noqa: ANN401
        density = tf.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
        return upstream * (cdf + x * density)

    return x * cdf, gradient


@keras.saving.register_keras_serializable(package="keras_bert")
class FeedForward(keras.layers.Layer):
    """Two dense layers with GELU between them, applied to each token separately."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        approximate: bool = False,  # noqa: FBT001, FBT002 - Keras configs name it
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Store the sizes and create the sub-layers.

        Args:
            hidden_size: C.
            intermediate_size: Width between the dense layers.
            approximate: Form of GELU, see `gelu`.
            kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.hidden_size, self.intermediate_size, self.approximate = (
            hidden_size,
            intermediate_size,
            approximate,
        )
        self.supports_masking = True
        dense = {"kernel_initializer": normal_initializer(), "dtype": self.dtype_policy}
        self.intermediate = keras.layers.Dense(intermediate_size, name="intermediate", **dense)
        self.output_projection = keras.layers.Dense(hidden_size, name="output_projection", **dense)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights of both dense layers."""
        self.intermediate.build(input_shape)
        self.output_projection.build((*input_shape[:-1], self.intermediate_size))
        self.built = True

    def call(self, hidden: Any) -> Any:  # noqa: ANN401
        """Map [B, T, C] to [B, T, C]."""
        return self.output_projection(gelu(self.intermediate(hidden), self.approximate))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        own = {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "approximate": self.approximate,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="keras_bert")
class AddNorm(keras.layers.Layer):
    """LayerNorm(residual + dropout(output of a sub-layer)); as in the papers, dropout is first."""

    def __init__(self, drop_rate: float = 0.1, epsilon: float = 1e-12, **kwargs: Any) -> None:  # noqa: ANN401
        """Store the constants and create the sub-layers.

        Args:
            drop_rate: Dropout on the output of the sub-layer, 0..1.
            epsilon: Epsilon added to the variance.
            kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.drop_rate, self.epsilon = drop_rate, epsilon
        self.supports_masking = True
        self.dropout = keras.layers.Dropout(drop_rate, dtype=self.dtype_policy)
        self.norm = keras.layers.LayerNormalization(
            epsilon=epsilon, dtype=self.dtype_policy, name="norm"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create gain and bias."""
        self.norm.build(input_shape)
        self.built = True

    def call(self, output: Any, residual: Any, training: bool | None = None) -> Any:  # noqa: ANN401, FBT001
        """Map two tensors [B, T, C] to one [B, T, C]."""
        return self.norm(residual + self.dropout(output, training=training))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:  # noqa: ANN401, ARG002
        """Return the mask of the sub-layer's output."""
        return previous_mask[0] if isinstance(previous_mask, list | tuple) else previous_mask

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "drop_rate": self.drop_rate, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="keras_bert")
class EncoderBlock(keras.layers.Layer):
    """Self-attention and a feed-forward network, each followed by `AddNorm`."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        drop_rate: float = 0.1,
        attention_drop_rate: float = 0.0,
        epsilon: float = 1e-12,
        approximate: bool = False,  # noqa: FBT001, FBT002 - Keras configs name it
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Store the sizes and create the sub-layers.

        Args:
            hidden_size: C.
            num_heads: A.
            intermediate_size: Hidden width of the feed-forward network.
            drop_rate: Dropout on the output of both sub-layers, 0..1.
            attention_drop_rate: Dropout on the attention weights, 0..1.
            epsilon: Epsilon of both LayerNorms.
            approximate: Form of GELU, see `gelu`.
            kwargs: Passed to `keras.layers.Layer`.

        Raises:
            ValueError: If C is not a multiple of A.
        """
        super().__init__(**kwargs)
        self.settings = {
            "hidden_size": hidden_size,
            "num_heads": num_heads,
            "intermediate_size": intermediate_size,
            "drop_rate": drop_rate,
            "attention_drop_rate": attention_drop_rate,
            "epsilon": epsilon,
            "approximate": approximate,
        }
        self.supports_masking = True
        policy = self.dtype_policy
        self.attention = MultiHeadAttention(
            hidden_size, num_heads, attention_drop_rate, dtype=policy, name="attention"
        )
        self.attention_norm = AddNorm(drop_rate, epsilon, dtype=policy, name="attention_norm")
        self.feed_forward = FeedForward(
            hidden_size, intermediate_size, approximate, dtype=policy, name="feed_forward"
        )
        self.feed_forward_norm = AddNorm(drop_rate, epsilon, dtype=policy, name="feed_forward_norm")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights of all sub-layers."""
        for layer in (
            self.attention,
            self.attention_norm,
            self.feed_forward,
            self.feed_forward_norm,
        ):
            layer.build(input_shape)
        self.built = True

    def call(
        self,
        hidden: Any,  # noqa: ANN401 - Keras has no type for a tensor
        mask: Any = None,  # noqa: ANN401
        training: bool | None = None,  # noqa: FBT001 - Keras's signature
        return_attention_scores: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:  # noqa: ANN401
        """Apply the block; arguments and results are those of `MultiHeadAttention.call`."""
        attended, weights = self.attention(
            hidden, mask=mask, training=training, return_attention_scores=True
        )
        attended = self.attention_norm(attended, hidden, training=training)
        output = self.feed_forward_norm(self.feed_forward(attended), attended, training=training)
        return (output, weights) if return_attention_scores else output

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:  # noqa: ANN401, ARG002
        """Return the mask unchanged."""
        return previous_mask

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), **self.settings}
