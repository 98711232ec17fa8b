"""Hugging Face's names of the weights of a BERT."""

from typing import NamedTuple

import keras

from keras_bert.network.model import EMBEDDING, settings_of
from keras_bert.network.tasks import PretrainingModel


class MappedWeight(NamedTuple):
    """A Keras variable, and whether PyTorch stores its matrix transposed."""

    variable: keras.Variable
    transposed: bool


def weight_map(model: keras.Model) -> dict[str, MappedWeight]:
    """Return the Keras variable of every weight name of Hugging Face.

    Args:
        model: A model of `create_BERT`, with the names of `BertModel`; or a `PretrainingModel`,
            with the names of `BertForPreTraining` or, without next-sentence head, those of
            `BertForMaskedLM`, which has no pooler.

    Returns:
        The variables by Hugging Face's names.
    """
    if isinstance(model, PretrainingModel):
        named = {f"bert.{name}": part for name, part in weight_map(model.bert).items()}
        transform = "cls.predictions.transform"
        named |= _dense(f"{transform}.dense", model.mlm.dense) | _norm(
            f"{transform}.LayerNorm", model.mlm.norm
        )
        named["cls.predictions.bias"] = MappedWeight(model.mlm.bias, transposed=False)
        if model.nsp is not None:
            return named | _dense("cls.seq_relationship", model.nsp)
        # Without the next-sentence head, the pooler has not been trained.
        return {name: part for name, part in named.items() if ".pooler." not in name}
    embedding = model.get_layer(EMBEDDING)
    tables = {
        "word": embedding.token_table,
        "position": embedding.position_table,
        "token_type": embedding.segment_table,
    }
    named = {
        f"embeddings.{kind}_embeddings.weight": MappedWeight(table, transposed=False)
        for kind, table in tables.items()
    }
    named |= _norm("embeddings.LayerNorm", embedding.norm)
    for i in range(settings_of(model)["num_layers"]):
        block, prefix = model.get_layer(f"encoder_{i}"), f"encoder.layer.{i}"
        attention = block.attention
        for name, dense in (
            ("query", attention.query),
            ("key", attention.key),
            ("value", attention.value),
        ):
            named |= _dense(f"{prefix}.attention.self.{name}", dense)
        named |= _dense(f"{prefix}.attention.output.dense", attention.output_projection)
        named |= _norm(f"{prefix}.attention.output.LayerNorm", block.attention_norm.norm)
        named |= _dense(f"{prefix}.intermediate.dense", block.feed_forward.intermediate)
        named |= _dense(f"{prefix}.output.dense", block.feed_forward.output_projection)
        named |= _norm(f"{prefix}.output.LayerNorm", block.feed_forward_norm.norm)
    return named | _dense("pooler.dense", model.get_layer("pooler").dense)


def _dense(name: str, layer: keras.layers.Dense) -> dict[str, MappedWeight]:
    return {
        f"{name}.weight": MappedWeight(layer.kernel, transposed=True),
        f"{name}.bias": MappedWeight(layer.bias, transposed=False),
    }


def _norm(name: str, layer: keras.layers.LayerNormalization) -> dict[str, MappedWeight]:
    return {
        f"{name}.weight": MappedWeight(layer.gamma, transposed=False),
        f"{name}.bias": MappedWeight(layer.beta, transposed=False),
    }
