"""BERT with the head of a task: masked language model, classification.

Shapes: `B` texts, `T` tokens, `P` masked positions, `K` classes.
"""

from typing import Any

import keras

from keras_bert.network.attention import normal_initializer
from keras_bert.network.embedding import PAD
from keras_bert.network.heads import MaskedLMHead
from keras_bert.network.model import EMBEDDING, settings_of


@keras.saving.register_keras_serializable(package="keras_bert")
class PretrainingModel(keras.Model):
    """BERT with the masked-LM head and optionally the next-sentence head."""

    def __init__(self, bert: keras.Model, *, next_sentence: bool = False, **kwargs: Any) -> None:  # noqa: ANN401
        """Add the heads.

        Only the next-sentence head reads the pooler. Without this head the pooler is not trainable.

        Args:
            bert: A model made by `create_BERT`.
            next_sentence: Add the next-sentence head.
            kwargs: Passed to `keras.Model`.
        """
        super().__init__(**kwargs)
        settings = settings_of(bert)
        self.bert, self.next_sentence = bert, next_sentence
        self.mlm = MaskedLMHead(
            bert.get_layer(EMBEDDING),
            settings["epsilon"],
            settings["approximate_gelu"],
            name="mlm",
            dtype=self.dtype_policy,
        )
        self.nsp = _output(2, "nsp") if next_sentence else None
        _set_trainable(bert.get_layer("pooler"), value=next_sentence)
        self.build()

    def build(self, input_shape: Any = None) -> None:  # noqa: ANN401, ARG002 - Keras's signature
        """Create the weights of the heads; the BERT already has its own."""
        width = settings_of(self.bert)["hidden_size"]
        self.mlm.build((None, None, width))
        if self.nsp is not None:
            self.nsp.build((None, width))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:  # noqa: FBT001 - Keras's signature
        """Compute the logits at the masked positions.

        Args:
            inputs: `input_ids` and `token_type_ids` [B, T], and `masked_positions` [B, P], 0..T-1.
            training: Apply dropout.

        Returns:
            Logits in float32: `mlm` [B, P, vocabulary]. With the next-sentence head also `nsp`
            [B, 2], where class 0 means that the second text follows and class 1 that it does not.
        """
        states = self.bert({name: inputs[name] for name in self.bert.input}, training=training)
        outputs = {"mlm": self.mlm(states["sequence_output"], inputs["masked_positions"])}
        if self.nsp is not None:
            outputs["nsp"] = self.nsp(states["pooled_output"])
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        own = {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "next_sentence": self.next_sentence,
        }
        return {**own, "bert": keras.saving.serialize_keras_object(self.bert)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "PretrainingModel":  # noqa: ANN401, ARG003
        """Create the model from the result of `get_config`."""
        bert = keras.saving.deserialize_keras_object(config.pop("bert"))
        return cls(bert, **config)


@keras.saving.register_keras_serializable(package="keras_bert")
class Classifier(keras.Model):
    """BERT with a linear classifier on the pooled output, or with a BiGRU over all tokens.

    The BiGRU variant follows Alghamdi, Lin & Luo (Knowledge-Based Systems 274, 2023, doi
    10.1016/j.knosys.2023.110642).
    """

    def __init__(
        self,
        bert: keras.Model,
        num_classes: int,
        *,
        frozen: bool = False,
        gru_units: int = 0,
        dropout: float = 0.0,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Add the head.

        Args:
            bert: A model made by `create_BERT`.
            num_classes: K.
            frozen: Do not train the BERT. Its dropout is then always off, even while the head
                trains.
            gru_units: Units of the GRU in each direction; 0 for a linear classifier on the pooled
                output.
            dropout: Dropout before the output layer, 0..1.
            kwargs: Passed to `keras.Model`.
        """
        super().__init__(**kwargs)
        self.bert, self.frozen = bert, frozen
        self.settings = {
            "num_classes": num_classes,
            "frozen": frozen,
            "gru_units": gru_units,
            "dropout": dropout,
        }
        _set_trainable(bert, value=not frozen)
        # The BiGRU does not read the pooled output.
        _set_trainable(bert.get_layer("pooler"), value=not frozen and not gru_units)
        policy, self.gru = self.dtype_policy, None
        if gru_units:
            self.gru = keras.layers.Bidirectional(
                keras.layers.GRU(gru_units, dtype=policy), name="gru", dtype=policy
            )
        self.dropout = keras.layers.Dropout(dropout, dtype=policy)
        self.logits = _output(num_classes, "logits")
        self.build()

    def build(self, input_shape: Any = None) -> None:  # noqa: ANN401, ARG002 - Keras's signature
        """Create the weights of the head; the BERT already has its own."""
        width, units = settings_of(self.bert)["hidden_size"], self.settings["gru_units"]
        if self.gru is not None:
            self.gru.build((None, None, width))
        self.logits.build((None, 2 * units or width))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:  # noqa: ANN401, FBT001 - Keras's signature
        """Compute the logits of the classes.

        Args:
            inputs: `input_ids` and `token_type_ids` [B, T].
            training: Apply dropout; a frozen BERT never applies its own.

        Returns:
            [B, K] logits in float32.
        """
        states = self.bert(inputs, training=False if self.frozen else training)
        if self.gru is None:
            features = states["pooled_output"]
        else:
            features = self.gru(
                states["sequence_output"], mask=keras.ops.not_equal(inputs["input_ids"], PAD)
            )
        return self.logits(self.dropout(features, training=training))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        own = {"name": self.name, "dtype": self.dtype_policy.name, **self.settings}
        return {**own, "bert": keras.saving.serialize_keras_object(self.bert)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Classifier":  # noqa: ANN401, ARG003
        """Create the model from the result of `get_config`."""
        bert = keras.saving.deserialize_keras_object(config.pop("bert"))
        return cls(bert, **config)


def _output(count: int, name: str) -> keras.layers.Dense:
    return keras.layers.Dense(
        count, kernel_initializer=normal_initializer(), dtype="float32", name=name
    )


def _set_trainable(layer: keras.layers.Layer, *, value: bool) -> None:
    """Set `trainable` of a layer and of all its sub-layers.

    A frozen layer loaded from a file is marked as frozen, but its sub-layers are not. Setting the
    same value again has no effect, because TensorFlow ignores an attribute that does not change.
    Setting the opposite value first forces the change.
    """
    layer.trainable = not value
    layer.trainable = value
