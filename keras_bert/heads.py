"""What reads the encoder's output. `B` texts, `T` tokens, `C` hidden size, `V` vocabulary, `P` chosen positions."""

from typing import Any

import keras
from keras import ops

from keras_bert.attention import normal_initializer
from keras_bert.embedding import BertEmbedding
from keras_bert.encoder import gelu


@keras.saving.register_keras_serializable(package="keras_bert")
class Pooler(keras.layers.Layer):
    """tanh of a matrix times the first token's state."""

    def __init__(self, hidden_size: int, **kwargs: Any) -> None:  # noqa: ANN401
        """State the size.

        Args:
            hidden_size: C.
            kwargs: Of any Keras layer.
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
        """Make the matrix."""
        self.dense.build((input_shape[0], input_shape[2]))
        self.built = True

    def call(self, hidden: Any) -> Any:  # noqa: ANN401
        """[B, T, C] -> [B, C]."""
        return self.dense(hidden[:, 0])

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:  # noqa: ANN401
        """A vector of a text has no padding."""

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {**super().get_config(), "hidden_size": self.hidden_size}


@keras.saving.register_keras_serializable(package="keras_bert")
class MaskedLMHead(keras.layers.Layer):
    """What a masked token was: dense, GELU, LayerNorm, and the token table itself as the last matrix, with a bias."""

    def __init__(
        self,
        embedding: BertEmbedding,
        epsilon: float = 1e-12,
        approximate: bool = False,  # noqa: FBT001, FBT002 - Keras configs name it
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """State what it is tied to.

        Args:
            embedding: The model's embedding, whose token table this shares: one weight, two uses,
                also after saving.
            epsilon: Of the norm.
            approximate: GELU's form, see `gelu`.
            kwargs: Of any Keras layer.
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
        """Make the transform and the bias."""
        if not self.embedding.built:
            self.embedding.build(tuple(input_shape[:2]))
        self.dense.build(input_shape)
        self.norm.build(input_shape)
        self.bias = self.add_weight(
            name="bias", shape=(self.embedding.settings["vocab_size"],), initializer="zeros"
        )
        self.built = True

    def call(self, hidden: Any, positions: Any = None) -> Any:  # noqa: ANN401
        """Score every token of the vocabulary.

        Args:
            hidden: [B, T, C] states.
            positions: [B, P] which tokens to score, 0..T-1; all of them where not given.

        Returns:
            [B, P, V] logits, or [B, T, V], in float32.
        """
        if positions is not None:
            hidden = ops.take_along_axis(hidden, positions[:, :, None], axis=1)
        hidden = self.norm(gelu(self.dense(hidden), self.approximate))
        table = ops.cast(self.embedding.token_table, self.compute_dtype)
        return ops.cast(ops.matmul(hidden, ops.transpose(table)), "float32") + ops.cast(
            self.bias, "float32"
        )

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:  # noqa: ANN401
        """The loss has weights of its own."""

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes; Keras restores the shared embedding as one object."""
        embedding = keras.saving.serialize_keras_object(self.embedding)
        return {
            **super().get_config(),
            "embedding": embedding,
            "epsilon": self.epsilon,
            "approximate": self.approximate,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MaskedLMHead":
        """Restore the head, tied to the same embedding as the model's."""
        embedding = keras.saving.deserialize_keras_object(config.pop("embedding"))
        return cls(embedding, **config)
