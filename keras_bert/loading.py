"""Models and tokenizers by name: a run folder, a .keras file, a folder of Hugging Face's, or the hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_bert.convert import from_hugging_face
from keras_bert.errors import KerasBertError
from keras_bert.model import EMBEDDING, Classifier, PretrainingModel, create_BERT
from run_folders.errors import brief

_HUB_FILES = [
    "config.json",
    "model*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
]


class Source(NamedTuple):
    """Where a model comes from.

    Attributes:
        model: A BERT, a `PretrainingModel` or a `Classifier`.
        folder: Where its tokenizer lies.
        missing: Weights that it lacks.
        ours: Whether a run of keras_bert saved it.
    """

    model: keras.Model
    folder: Path
    missing: list[str]
    ours: bool


def load_network(path: Path) -> keras.Model:
    """Load a .keras file, running no code that it might hold.

    Raises:
        KerasBertError: If it cannot be read, or holds no model of this module.
    """
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises what the file makes it raise
        msg = f"{path} cannot be loaded: {brief(error)}"
        raise KerasBertError(msg) from error
    if not isinstance(model, Classifier | PretrainingModel) and EMBEDDING not in [
        layer.name for layer in model.layers
    ]:
        msg = f"{path} holds no BERT of keras_bert but {type(model).__name__} {model.name!r}"
        raise KerasBertError(msg)
    return model


def bert_of(model: keras.Model) -> keras.Model:
    """The BERT in a model."""
    return model.bert if isinstance(model, Classifier | PretrainingModel) else model


def find_source(name: str) -> Source:
    """Load what a user names.

    Args:
        name: A run folder, a .keras file, a folder with config.json and safetensors, or
            NAME[@REVISION] on the hub.

    Returns:
        The model and where its tokenizer lies.

    Raises:
        KerasBertError: If there is no such thing, or it cannot be used.
    """
    path = Path(name)
    best = path / "checkpoints" / "best.keras"
    if best.is_file():
        return Source(load_network(best), path, [], ours=True)
    if (path / "status.json").is_file():
        msg = f"{path} is a run without a checkpoint yet: give one that has finished an epoch"
        raise KerasBertError(msg)
    if path.suffix == ".keras":
        if not path.is_file():
            msg = f"{path} does not exist"
            raise KerasBertError(msg)
        return Source(
            load_network(path),
            path.parent.parent if path.parent.name == "checkpoints" else path.parent,
            [],
            ours=True,
        )
    folder = path if path.is_dir() else _from_hub(name)
    converted = from_hugging_face(folder)
    return Source(converted.model, folder, converted.missing, ours=False)


def fresh_bert(settings: dict[str, Any], weights_of: keras.Model | None) -> keras.Model:
    """A BERT in the precision that is set now, everything trainable.

    Args:
        settings: Of `create_BERT`.
        weights_of: A BERT of the same settings, or None for random weights.

    Returns:
        The model.
    """
    bert = create_BERT(**settings)
    if weights_of is not None:
        for ours, theirs in zip(bert.weights, weights_of.weights, strict=True):
            ours.assign(theirs)
    return bert


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=_HUB_FILES)
        )
    except Exception as error:  # whatever the hub, the network or the name makes of it
        msg = (
            f"{name} is no folder here, and the hub did not give it ({type(error).__name__}): "
            "give a folder with config.json and model.safetensors, or a name that is on the hub"
        )
        raise KerasBertError(msg) from error


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Make layers compute in a precision; the setting is Keras's own and global."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
