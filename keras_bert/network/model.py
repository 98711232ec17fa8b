"""BERT as a functional Keras model, and the models that pretrain and fine-tune it.

Shapes: `B` texts, `T` tokens, `C` hidden size, `P` masked positions, `K` classes.
"""

from typing import Any

import keras

from keras_bert.network.attention import normal_initializer
from keras_bert.network.embedding import PAD, BertEmbedding
from keras_bert.network.encoder import EncoderBlock
from keras_bert.network.heads import MaskedLMHead, Pooler

EMBEDDING = "embedding"


def create_BERT(  # noqa: N802 - public name
    vocab_size: int,
    maxlen: int,
    hidden_size: int,
    num_layers: int,
    num_att_heads: int,
    intermediate_size: int,
    drop_rate: float = 0.1,
    *,
    attention_drop_rate: float = 0.0,
    num_segments: int = 2,
    epsilon: float = 1e-12,
    approximate_gelu: bool = False,
    return_attention_scores: bool = False,
) -> keras.Model:
    """Connect embedding, encoder blocks and pooler.

    Args:
        vocab_size: Number of tokens in the vocabulary; token id 0 is padding.
        maxlen: Maximum text length in tokens.
        hidden_size: C, a multiple of `num_att_heads`.
        num_layers: Number of encoder blocks.
        num_att_heads: Number of attention heads per block.
        intermediate_size: Hidden width of the feed-forward networks.
        drop_rate: Dropout after the embedding and on the output of every sub-layer, 0..1.
        attention_drop_rate: Dropout on the attention weights, 0..1.
        num_segments: Number of rows of the segment table.
        epsilon: Epsilon of every LayerNorm.
        approximate_gelu: Use the tanh form of GELU.
        return_attention_scores: Return the attention weights too.

    Returns:
        A model with dicts as inputs and outputs. The inputs are `input_ids` and `token_type_ids`,
        both [B, T] int32. The outputs are `sequence_output` [B, T, C] and `pooled_output` [B, C].
        With `return_attention_scores` there is also `attention_scores`, a list with one
        [B, heads, T, T] per block.

    Raises:
        ValueError: If a size is below 1, or `hidden_size` is not a multiple of `num_att_heads`.
    """
    sizes = {
        "vocab_size": vocab_size,
        "maxlen": maxlen,
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "num_att_heads": num_att_heads,
        "intermediate_size": intermediate_size,
        "num_segments": num_segments,
    }
    for name, value in sizes.items():
        if value < 1:
            msg = f"{name} is {value}: give 1 or more"
            raise ValueError(msg)
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("input_ids", "token_type_ids")
    }
    embedding = BertEmbedding(
        vocab_size, maxlen, hidden_size, num_segments, drop_rate, epsilon, name=EMBEDDING
    )
    hidden, scores = embedding(inputs["input_ids"], inputs["token_type_ids"]), []
    for i in range(num_layers):
        block = EncoderBlock(
            hidden_size,
            num_att_heads,
            intermediate_size,
            drop_rate,
            attention_drop_rate,
            epsilon,
            approximate_gelu,
            name=f"encoder_{i}",
        )
        if return_attention_scores:
            hidden, weights = block(hidden, return_attention_scores=True)
            scores.append(weights)
        else:
            hidden = block(hidden)
    outputs = {
        "sequence_output": hidden,
        "pooled_output": Pooler(hidden_size, name="pooler")(hidden),
    }
    if return_attention_scores:
        outputs["attention_scores"] = scores
    return keras.Model(inputs, outputs, name="bert")


def settings_of(bert: keras.Model) -> dict[str, Any]:
    """Return the arguments of `create_BERT` that make a model of the same sizes.

    Args:
        bert: A model made by `create_BERT` or loaded from a file.

    Returns:
        All arguments except `return_attention_scores`.
    """
    blocks = [layer for layer in bert.layers if isinstance(layer, EncoderBlock)]
    embedding, block = bert.get_layer(EMBEDDING).settings, blocks[0].settings
    return {
        "vocab_size": embedding["vocab_size"],
        "maxlen": embedding["maxlen"],
        "hidden_size": embedding["hidden_size"],
        "num_layers": len(blocks),
        "num_att_heads": block["num_heads"],
        "intermediate_size": block["intermediate_size"],
        "drop_rate": block["drop_rate"],
        "attention_drop_rate": block["attention_drop_rate"],
        "num_segments": embedding["num_segments"],
        "epsilon": embedding["epsilon"],
        "approximate_gelu": block["approximate"],
    }


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
