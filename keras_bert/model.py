"""BERT as a functional Keras model, and the models that are trained with it. `B` texts, `T` tokens, `C` hidden size."""

from typing import Any

import keras

from keras_bert.attention import normal_initializer
from keras_bert.embedding import PAD, BertEmbedding
from keras_bert.encoder import EncoderBlock
from keras_bert.heads import MaskedLMHead, Pooler

EMBEDDING = "embedding"


def create_BERT(  # noqa: N802 - the name that was asked for
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
        vocab_size: Tokens in the vocabulary; number 0 is padding.
        maxlen: The longest text, in tokens.
        hidden_size: C, a multiple of the number of heads.
        num_layers: Encoder blocks.
        num_att_heads: Heads of each block.
        intermediate_size: Width inside the feed-forward networks.
        drop_rate: Of dropout behind the embedding and on the output of every sub-layer, 0..1.
        attention_drop_rate: Of dropout on the attention weights, 0..1.
        num_segments: Rows of the segment table.
        epsilon: Of every LayerNorm.
        approximate_gelu: Whether GELU is the form with tanh.
        return_attention_scores: Whether the model gives the attention weights too.

    Returns:
        A model from `input_ids` and `token_type_ids`, both [B, T] int32, to `sequence_output` [B,
        T, C] and `pooled_output` [B, C], and where asked for `attention_scores`, a list of [B,
        heads, T, T], one a block. Inputs and outputs are dicts.

    Raises:
        ValueError: If a size is below 1, or `hidden_size` is no multiple of `num_att_heads`.
    """
    sizes = {
        "vocab_size": vocab_size, "maxlen": maxlen, "hidden_size": hidden_size, "num_layers": num_layers,
        "num_att_heads": num_att_heads, "intermediate_size": intermediate_size, "num_segments": num_segments,
    }  # fmt: skip
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
            hidden_size, num_att_heads, intermediate_size, drop_rate, attention_drop_rate, epsilon, approximate_gelu,
            name=f"encoder_{i}",
        )  # fmt: skip
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
    """The arguments with which `create_BERT` makes such a model.

    Args:
        bert: Made by `create_BERT`, or loaded from a file.

    Returns:
        Every argument but `return_attention_scores`.
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
    """A BERT under the masked-LM head and, where asked for, the next-sentence head."""

    def __init__(self, bert: keras.Model, *, next_sentence: bool = False, **kwargs: Any) -> None:  # noqa: ANN401
        """Put the heads on. Without next sentences nothing reads the pooler, which therefore does not train.

        Args:
            bert: Of `create_BERT`.
            next_sentence: Whether there is a second head.
            kwargs: Of any Keras model.
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
        """Make the weights of the heads; those of the BERT are there."""
        width = settings_of(self.bert)["hidden_size"]
        self.mlm.build((None, None, width))
        if self.nsp is not None:
            self.nsp.build((None, width))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:  # noqa: FBT001 - Keras's signature
        """Score what was masked.

        Args:
            inputs: `input_ids` and `token_type_ids` [B, T], and `masked_positions` [B, P], 0..T-1.
            training: Whether dropout is on.

        Returns:
            `mlm` [B, P, vocabulary], and of two heads `nsp` [B, 2] (0: follows, 1: does not):
            logits in float32.
        """
        states = self.bert({name: inputs[name] for name in self.bert.input}, training=training)
        outputs = {"mlm": self.mlm(states["sequence_output"], inputs["masked_positions"])}
        if self.nsp is not None:
            outputs["nsp"] = self.nsp(states["pooled_output"])
        return outputs

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        own = {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "next_sentence": self.next_sentence,
        }
        return {**own, "bert": keras.saving.serialize_keras_object(self.bert)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "PretrainingModel":  # noqa: ANN401, ARG003
        """Restore the model."""
        bert = keras.saving.deserialize_keras_object(config.pop("bert"))
        return cls(bert, **config)


@keras.saving.register_keras_serializable(package="keras_bert")
class Classifier(keras.Model):
    """A BERT under a classifier of its pooled output, or of every token's state read by a BiGRU.

    The latter after Alghamdi, Lin & Luo (Knowledge-Based Systems 274, 2023, doi
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
        """Put the head on.

        Args:
            bert: Of `create_BERT`.
            num_classes: K.
            frozen: Whether the BERT stays as it is; its dropout is then off too, also while the
                head trains.
            gru_units: Units of the GRU in each direction; 0 for a linear classifier of the pooled
                output.
            dropout: Before the output layer, 0..1.
            kwargs: Of any Keras model.
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
        _set_trainable(
            bert.get_layer("pooler"), value=not frozen and not gru_units
        )  # a BiGRU does not read it
        policy, self.gru = self.dtype_policy, None
        if gru_units:
            self.gru = keras.layers.Bidirectional(
                keras.layers.GRU(gru_units, dtype=policy), name="gru", dtype=policy
            )
        self.dropout = keras.layers.Dropout(dropout, dtype=policy)
        self.logits = _output(num_classes, "logits")
        self.build()

    def build(self, input_shape: Any = None) -> None:  # noqa: ANN401, ARG002 - Keras's signature
        """Make the weights of the head; those of the BERT are there."""
        width, units = settings_of(self.bert)["hidden_size"], self.settings["gru_units"]
        if self.gru is not None:
            self.gru.build((None, None, width))
        self.logits.build((None, 2 * units or width))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:  # noqa: ANN401, FBT001 - Keras's signature
        """Score the classes.

        Args:
            inputs: `input_ids` and `token_type_ids` [B, T].
            training: Whether dropout is on, of a frozen BERT never.

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
        """What the constructor takes."""
        own = {"name": self.name, "dtype": self.dtype_policy.name, **self.settings}
        return {**own, "bert": keras.saving.serialize_keras_object(self.bert)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Classifier":  # noqa: ANN401, ARG003
        """Restore the model."""
        bert = keras.saving.deserialize_keras_object(config.pop("bert"))
        return cls(bert, **config)


def _output(count: int, name: str) -> keras.layers.Dense:
    return keras.layers.Dense(
        count, kernel_initializer=normal_initializer(), dtype="float32", name=name
    )


def _set_trainable(layer: keras.layers.Layer, *, value: bool) -> None:
    """Set it for the layer and all that is in it.

    A frozen layer from a file says that it is frozen, but not to the layers inside; saying so again
    changes nothing, as TensorFlow ignores an attribute that is given the value it has.
    """
    layer.trainable = not value
    layer.trainable = value
