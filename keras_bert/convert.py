"""Conversion of weights between Hugging Face's BERT and the model of `create_BERT`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from keras_bert.errors import KerasBertError
from keras_bert.network.model import create_BERT, settings_of
from keras_bert.network.tasks import PretrainingModel
from keras_bert.network.weight_names import MappedWeight, weight_map
from run_folders.memory import check_model_folder
from run_folders.untrusted import read_json

Weights = dict[str, NDArray[Any]]

_APPROXIMATE = {"gelu": False, "gelu_new": True, "gelu_pytorch_tanh": True}
# Checkpoints of 2019 use the old names for LayerNorm's weights.
_OLD_SUFFIXES = {".gamma": ".weight", ".beta": ".bias"}
_REQUIRED_CONFIG = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "pad_token_id": 0,
    "is_decoder": False,
}


class Converted(NamedTuple):
    """A model with the weights of a published BERT.

    Attributes:
        model: The model.
        missing: Names of the weights that the source lacks; they are random.
    """

    model: keras.Model
    missing: list[str]


def from_hugging_face(source: Path) -> Converted:
    """Create a BERT from a folder of Hugging Face's; its pooler may be missing.

    Args:
        source: Folder written by `save_pretrained` of transformers' `BertModel` or of a BERT with
            heads.

    Returns:
        A model of `create_BERT`, and the names of missing weights.

    Raises:
        KerasBertError: If the source is not a BERT, or its weights do not fit its configuration.
    """
    config, weights = _read(source)
    settings = _settings(config, source)
    prefix = "bert." if any(name.startswith("bert.") for name in weights) else ""
    return _assign_weights(
        create_BERT(**settings),
        {name.removeprefix(prefix): array for name, array in weights.items()},
        source,
    )


def to_hugging_face(model: keras.Model, folder: Path) -> None:
    """Write config.json and model.safetensors for `BertModel.from_pretrained` of transformers.

    Args:
        model: A model of `create_BERT`, or a `PretrainingModel` (for `BertForMaskedLM` or
            `BertForPreTraining`).
        folder: Folder to write to; it is created if it does not exist.

    Raises:
        KerasBertError: If the folder already has a config.json.
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
    config = {
        "architectures": [architecture],
        **_REQUIRED_CONFIG,
        **_hugging_face_config(settings_of(bert)),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(hugging_face_weights(model), folder / "model.safetensors", metadata={"format": "pt"})


def hugging_face_weights(model: keras.Model) -> Weights:
    """Return all weights under Hugging Face's names, in PyTorch's layout and float32.

    Args:
        model: A model of `create_BERT`, or a `PretrainingModel`.

    Returns:
        The weights, as in the `state_dict` of the model in PyTorch.
    """
    return {
        name: np.ascontiguousarray(_relayout(keras.ops.convert_to_numpy(part.variable), part))
        for name, part in weight_map(model).items()
    }


def _relayout(array: NDArray[Any], part: MappedWeight) -> NDArray[Any]:
    """Convert between Keras's and PyTorch's layout, which is the same operation both ways."""
    return array.T if part.transposed else array


def _assign_weights(model: keras.Model, weights: Weights, source: Path) -> Converted:
    """Check all weights, then assign them to the model."""
    parts = weight_map(model)
    missing = [name for name in parts if name not in weights]
    required = [name for name in missing if "pooler." not in name]
    if required:
        msg = (
            f"{source} lacks {len(required)} weights, the first of them {required[0]}: "
            "give a folder with all weights of a BERT"
        )
        raise KerasBertError(msg)
    for name, part in parts.items():
        shape = tuple(part.variable.shape)
        if name not in missing and _relayout(weights[name], part).shape != shape:
            expected = shape[::-1] if part.transposed else shape
            msg = (
                f"{source}: {name} has shape {weights[name].shape}, but config.json requires "
                f"{expected}; give the config.json that belongs to the weights"
            )
            raise KerasBertError(msg)
    for name, part in parts.items():
        if name not in missing:
            part.variable.assign(_relayout(weights[name], part).astype(np.float32))
    return Converted(model, missing)


def _settings(config: dict[str, Any], source: Path) -> dict[str, Any]:
    """Return the arguments of `create_BERT` for a configuration of Hugging Face's."""
    for key, required in _REQUIRED_CONFIG.items():
        if config.get(key, required) != required:
            msg = (
                f"{source}: {key} is {config[key]!r}; only BERTs with {required!r} can be converted"
            )
            raise KerasBertError(msg)
    activation = config.get("hidden_act", "gelu")
    if activation not in _APPROXIMATE:
        msg = (
            f"{source}: hidden_act is {activation!r}; "
            f"only {', '.join(_APPROXIMATE)} can be converted"
        )
        raise KerasBertError(msg)
    names = {ours: theirs for ours, theirs in _CONFIG_NAMES.items() if theirs in config}
    missing = [theirs for ours, theirs in _CONFIG_NAMES.items() if ours not in names]
    if missing:
        msg = f"{source}: config.json has no {missing[0]}; give the config.json of a BERT"
        raise KerasBertError(msg)
    return {ours: config[theirs] for ours, theirs in names.items()} | {
        "approximate_gelu": _APPROXIMATE[activation]
    }


_CONFIG_NAMES = {
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


def _hugging_face_config(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of Hugging Face's for arguments of `create_BERT`."""
    activation = "gelu_new" if settings["approximate_gelu"] else "gelu"
    return {theirs: settings[ours] for ours, theirs in _CONFIG_NAMES.items()} | {
        "hidden_act": activation
    }


def _read(folder: Path) -> tuple[dict[str, Any], Weights]:
    """Return the configuration, and the weights under their current names."""
    config, named = _read_folder(folder)
    weights = {}
    for name, array in named:
        for old, new in _OLD_SUFFIXES.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        weights[name] = array
    return config, weights


def _read_folder(folder: Path) -> tuple[dict[str, Any], list[tuple[str, NDArray[Any]]]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config, files = folder / "config.json", sorted(folder.glob("model*.safetensors"))
    if not config.is_file() or not files:
        missing = "config.json" if not config.is_file() else "model.safetensors"
        msg = (
            f"{folder} has no {missing}: "
            "give a folder written by save_pretrained, with weights as safetensors"
        )
        raise KerasBertError(msg)
    check_model_folder(folder)
    content = read_json(config, dict[str, Any], "download or copy it again")
    try:
        return content, [
            (name, np.asarray(array)) for file in files for name, array in load_file(file).items()
        ]
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        msg = f"{folder} cannot be read: {error}; download or copy it again"
        raise KerasBertError(msg) from error
