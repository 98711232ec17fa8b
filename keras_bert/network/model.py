"""BERT as a functional Keras model, and its sizes.

Shapes: `B` texts, `T` tokens, `C` hidden size.
"""

from typing import Any

import keras

from keras_bert.network.embedding import BertEmbedding
from keras_bert.network.encoder import EncoderBlock
from keras_bert.network.heads import Pooler

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
