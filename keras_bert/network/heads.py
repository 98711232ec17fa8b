"""Heads on the encoder's output: pooler and masked-LM head.

Shapes: `B` texts, `T` tokens, `C` hidden size, `V` vocabulary size, `P` chosen positions.
"""

from typing import Any

import keras
from keras import ops

from keras_bert.network.attention import normal_initializer
from keras_bert.network.embedding import BertEmbedding
from keras_bert.network.encoder import gelu


@keras.saving.register_keras_serializable(package="keras_bert")
class Pooler(keras.layers.Layer):
    """Dense layer with tanh on the hidden state of the first token."""

    def __init__(self, hidden_size: int, **kwargs: Any) -> None:  # noqa: ANN401
        """Store the size and create the dense layer.

        Args:
            hidden_size: C.
            kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.supports_masking = True
        self.dense = keras.layers.Dense(
            hidden_size,
            "tanh",
            kernel_initializer=normal_initializer(),
            dtype=self.dtype_policy,
            name="dense",
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights of the dense layer."""
        self.dense.build((input_shape[0], input_shape[2]))
        self.built = True

    def call(self, hidden: Any) -> Any:  # noqa: ANN401
        """Map [B, T, C] to [B, C]."""
        return self.dense(hidden[:, 0])

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:  # noqa: ANN401
        """Return no mask: the output has one vector per text."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "hidden_size": self.hidden_size}


@keras.saving.register_keras_serializable(package="keras_bert")
class MaskedLMHead(keras.layers.Layer):
    """Masked-LM head: dense layer, GELU, LayerNorm, and an output layer tied to the token table."""

    def __init__(
        self,
        embedding: BertEmbedding,
        epsilon: float = 1e-12,
        approximate: bool = False,  # noqa: FBT001, FBT002 - Keras configs name it
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Store the embedding and create the sub-layers.

        Args:
            embedding: The model's embedding. The head uses its token table as the output matrix;
                both share one weight, also after saving and loading.
            epsilon: Epsilon of LayerNorm.
            approximate: Form of GELU, see `gelu`.
            kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.embedding, self.epsilon, self.approximate = embedding, epsilon, approximate
        self.supports_masking = True
        width = embedding.settings["hidden_size"]
        initializer = normal_initializer()
        self.dense = keras.layers.Dense(
            width, kernel_initializer=initializer, dtype=self.dtype_policy, name="dense"
        )
        self.norm = keras.layers.LayerNormalization(
            epsilon=epsilon, dtype=self.dtype_policy, name="norm"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights of the dense layer and LayerNorm, and the output bias."""
        if not self.embedding.built:
            self.embedding.build(tuple(input_shape[:2]))
        self.dense.build(input_shape)
        self.norm.build(input_shape)
        self.bias = self.add_weight(
            name="bias", shape=(self.embedding.settings["vocab_size"],), initializer="zeros"
        )
        self.built = True

    def call(self, hidden: Any, positions: Any = None) -> Any:  # noqa: ANN401
        """Compute the logits over the vocabulary.

        Args:
            hidden: [B, T, C] hidden states.
            positions: [B, P] positions to predict, 0..T-1; None for all positions.

        Returns:
            Logits in float32, [B, P, V] or, without `positions`, [B, T, V].
        """
        if positions is not None:
            hidden = ops.take_along_axis(hidden, positions[:, :, None], axis=1)
        hidden = self.norm(gelu(self.dense(hidden), self.approximate))
        table = ops.cast(self.embedding.token_table, self.compute_dtype)
        return ops.cast(ops.matmul(hidden, ops.transpose(table)), "float32") + ops.cast(
            self.bias, "float32"
        )

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:  # noqa: ANN401
        """Return no mask: the loss has its own weights."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Keras restores the embedding as one object shared with the model.
        """
        embedding = keras.saving.serialize_keras_object(self.embedding)
        return {
            **super().get_config(),
            "embedding": embedding,
            "epsilon": self.epsilon,
            "approximate": self.approximate,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MaskedLMHead":
        """Create the head from the result of `get_config`, tied to the model's embedding."""
        embedding = keras.saving.deserialize_keras_object(config.pop("embedding"))
        return cls(embedding, **config)
