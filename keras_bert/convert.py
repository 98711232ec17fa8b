"""Weights from Hugging Face's BERT into `create_BERT`'s model, and back."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from keras_bert.errors import KerasBertError
from keras_bert.model import EMBEDDING, PretrainingModel, create_BERT, settings_of

Weights = dict[str, NDArray[Any]]

_APPROXIMATE = {"gelu": False, "gelu_new": True, "gelu_pytorch_tanh": True}
_OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}  # as checkpoints of 2019 name the norms
_WANTED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "pad_token_id": 0,
    "is_decoder": False,
}


class Counterpart(NamedTuple):
    """A variable of ours and how Hugging Face holds it."""

    variable: keras.Variable
    transposed: bool


def counterparts(model: keras.Model) -> dict[str, Counterpart]:
    """Hugging Face's name of every weight.

    Args:
        model: Of `create_BERT`, or a `PretrainingModel`, whose names then are those of
            `BertForPreTraining`, or of `BertForMaskedLM`, which has no pooler.

    Returns:
        Name -> our variable, and whether it is a matrix that PyTorch holds transposed.
    """
    if isinstance(model, PretrainingModel):
        named = {f"bert.{name}": part for name, part in counterparts(model.bert).items()}
        transform = "cls.predictions.transform"
        named |= _dense(f"{transform}.dense", model.mlm.dense) | _norm(
            f"{transform}.LayerNorm", model.mlm.norm
        )
        named["cls.predictions.bias"] = Counterpart(model.mlm.bias, transposed=False)
        if model.nsp is not None:
            return named | _dense("cls.seq_relationship", model.nsp)
        return {
            name: part for name, part in named.items() if ".pooler." not in name
        }  # nothing has trained it
    embedding = model.get_layer(EMBEDDING)
    tables = {
        "word": embedding.token_table,
        "position": embedding.position_table,
        "token_type": embedding.segment_table,
    }
    named = {
        f"embeddings.{kind}_embeddings.weight": Counterpart(table, transposed=False)
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


def _dense(name: str, layer: keras.layers.Dense) -> dict[str, Counterpart]:
    return {
        f"{name}.weight": Counterpart(layer.kernel, transposed=True),
        f"{name}.bias": Counterpart(layer.bias, transposed=False),
    }


def _norm(name: str, layer: keras.layers.LayerNormalization) -> dict[str, Counterpart]:
    return {
        f"{name}.weight": Counterpart(layer.gamma, transposed=False),
        f"{name}.bias": Counterpart(layer.beta, transposed=False),
    }


class Converted(NamedTuple):
    """A model with a published BERT's weights.

    Attributes:
        model: The model.
        missing: Names of weights that the source lacks and that are random therefore.
    """

    model: keras.Model
    missing: list[str]


def from_hugging_face(source: Path) -> Converted:
    """Make the BERT that the source is. A pooler, which not every source has, may be missing.

    Args:
        source: The folder that `save_pretrained` of a `BertModel` of transformers, or of one with
            heads, wrote.

    Returns:
        A model of `create_BERT`.

    Raises:
        KerasBertError: If the source is no BERT, or its weights do not fit its configuration.
    """
    config, weights = _read(source)
    settings = _settings(config, source)
    prefix = "bert." if any(name.startswith("bert.") for name in weights) else ""
    return _filled(
        create_BERT(**settings),
        {name.removeprefix(prefix): array for name, array in weights.items()},
        source,
    )


def to_hugging_face(model: keras.Model, folder: Path) -> None:
    """Write config.json and model.safetensors, from which `BertModel.from_pretrained` makes the same model in PyTorch.

    Args:
        model: Of `create_BERT`, or a `PretrainingModel` (for `BertForMaskedLM` or
            `BertForPreTraining`).
        folder: Where to; made if it is missing.

    Raises:
        KerasBertError: If the folder has a model already.
    """
    from safetensors.numpy import save_file

    if (folder / "config.json").exists():
        msg = f"{folder} has a config.json already: give another folder"
        raise KerasBertError(msg)
    bert = model.bert if isinstance(model, PretrainingModel) else model
    folder.mkdir(parents=True, exist_ok=True)
    architecture = "BertModel"
    if isinstance(model, PretrainingModel):
        architecture = "BertForPreTraining" if model.nsp is not None else "BertForMaskedLM"
    config = {"architectures": [architecture], **_WANTED, **_published(settings_of(bert))}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(hugging_face_weights(model), folder / "model.safetensors", metadata={"format": "pt"})


def hugging_face_weights(model: keras.Model) -> Weights:
    """Every weight under Hugging Face's name, in PyTorch's layout, float32.

    Args:
        model: Of `create_BERT`, or a `PretrainingModel`.

    Returns:
        What its `state_dict` holds.
    """
    return {
        name: np.ascontiguousarray(_turned(keras.ops.convert_to_numpy(part.variable), part))
        for name, part in counterparts(model).items()
    }


def _turned(array: NDArray[Any], part: Counterpart) -> NDArray[Any]:
    return array.T if part.transposed else array


def _filled(model: keras.Model, weights: Weights, source: Path) -> Converted:
    """Put the weights in, after all of them have been checked."""
    parts = counterparts(model)
    missing = [name for name in parts if name not in weights]
    lacking = [name for name in missing if "pooler." not in name]
    if lacking:
        msg = f"{source} lacks {len(lacking)} weights, the first of them {lacking[0]}: is it complete, and a BERT?"
        raise KerasBertError(msg)
    for name, part in parts.items():
        if name not in missing and _turned(weights[name], part).shape != tuple(part.variable.shape):
            expected = _turned(np.empty(part.variable.shape, dtype=np.bool_), part).shape
            msg = f"{source}: {name} has shape {weights[name].shape} where its configuration says {expected}"
            raise KerasBertError(msg)
    for name, part in parts.items():
        if name not in missing:
            part.variable.assign(_turned(weights[name], part).astype(np.float32))
    return Converted(model, missing)


def _settings(config: dict[str, Any], source: Path) -> dict[str, Any]:
    """What `create_BERT` takes, from a configuration of Hugging Face's."""
    for key, wanted in _WANTED.items():
        if config.get(key, wanted) != wanted:
            msg = f"{source}: {key} is {config[key]!r}; only BERTs with {wanted!r} can be converted"
            raise KerasBertError(msg)
    activation = config.get("hidden_act", "gelu")
    if activation not in _APPROXIMATE:
        msg = f"{source}: hidden_act is {activation!r}; only {', '.join(_APPROXIMATE)} can be converted"
        raise KerasBertError(msg)
    names = {ours: theirs for ours, theirs in _NAMES.items() if theirs in config}
    lacking = [theirs for ours, theirs in _NAMES.items() if ours not in names]
    if lacking:
        msg = f"{source}: its configuration does not say {lacking[0]}; it needs a config.json of a BERT"
        raise KerasBertError(msg)
    return {ours: config[theirs] for ours, theirs in names.items()} | {
        "approximate_gelu": _APPROXIMATE[activation]
    }


_NAMES = {
    "vocab_size": "vocab_size",
    "maxlen": "max_position_embeddings",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_att_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "drop_rate": "hidden_dropout_prob",
    "attention_drop_rate": "attention_probs_dropout_prob",
    "num_segments": "type_vocab_size",
    "epsilon": "layer_norm_eps",
}


def _published(settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration of Hugging Face's, from what `create_BERT` takes."""
    activation = "gelu_new" if settings["approximate_gelu"] else "gelu"
    return {theirs: settings[ours] for ours, theirs in _NAMES.items()} | {"hidden_act": activation}


def _read(folder: Path) -> tuple[dict[str, Any], Weights]:
    """Configuration and weights, the latter under today's names."""
    config, named = _read_folder(folder)
    weights = {}
    for name, array in named:
        for old, new in _OLD_NAMES.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        weights[name] = array
    return config, weights


def _read_folder(folder: Path) -> tuple[dict[str, Any], list[tuple[str, NDArray[Any]]]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config, files = folder / "config.json", sorted(folder.glob("model*.safetensors"))
    if not config.is_file() or not files:
        lacking = "config.json" if not config.is_file() else "model.safetensors"
        msg = f"{folder} has no {lacking}: give a folder that save_pretrained wrote, with its weights as safetensors"
        raise KerasBertError(msg)
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        return content, [
            (name, np.asarray(array)) for file in files for name, array in load_file(file).items()
        ]
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        msg = f"{folder} cannot be read: {error}; copy it again"
        raise KerasBertError(msg) from error
