"""Loading of models: run folders, .keras files, Hugging Face folders, and the Hugging Face Hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_bert.convert import from_hugging_face
from keras_bert.errors import KerasBertError
from keras_bert.network.model import EMBEDDING, create_BERT
from keras_bert.network.tasks import Classifier, PretrainingModel
from run_folders.errors import brief
from run_folders.memory import check_archive

_HUB_FILES = [
    "config.json",
    "model*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
]


class Source(NamedTuple):
    """A loaded model and its origin.

    Attributes:
        model: A BERT, a `PretrainingModel` or a `Classifier`.
        folder: Folder of its tokenizer.
        missing: Names of the weights that the source lacks; they are random.
        ours: True if a run of keras_bert saved the model.
    """

    model: keras.Model
    folder: Path
    missing: list[str]
    ours: bool


def load_network(path: Path) -> keras.Model:
    """Load a .keras file without executing code that it may contain.

    Raises:
        KerasBertError: If the file cannot be read, or does not contain a model of keras_bert.
        DamagedFileError: If it unpacks to more than the free memory.
    """
    check_archive(path, "give another file")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many types for a damaged file
        msg = f"{path} cannot be loaded: {brief(error)}"
        raise KerasBertError(msg) from error
    if not isinstance(model, Classifier | PretrainingModel) and EMBEDDING not in [
        layer.name for layer in model.layers
    ]:
        msg = (
            f"{path} contains {type(model).__name__} {model.name!r}, not a BERT of keras_bert: "
            "give another file"
        )
        raise KerasBertError(msg)
    return model


def bert_of(model: keras.Model) -> keras.Model:
    """Return the BERT inside a model; a BERT itself is returned unchanged."""
    return model.bert if isinstance(model, Classifier | PretrainingModel) else model


def find_source(name: str) -> Source:
    """Load the model that the user gave as `--model` or as run folder.

    Args:
        name: A run folder, a .keras file, a folder with config.json and safetensors, or
            NAME[@REVISION] on the Hugging Face Hub.

    Returns:
        The model and the folder of its tokenizer.

    Raises:
        KerasBertError: If the source does not exist or cannot be used.
    """
    path = Path(name)
    best = path / "checkpoints" / "best.keras"
    if best.is_file():
        return Source(load_network(best), path, [], ours=True)
    if (path / "status.json").is_file():
        msg = f"{path} is a run without a checkpoint: give a run with at least one finished epoch"
        raise KerasBertError(msg)
    if path.suffix == ".keras":
        if not path.is_file():
            msg = f"{path} does not exist: give an existing .keras file"
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
    """Create a fully trainable BERT in the current precision.

    Args:
        settings: Arguments of `create_BERT`.
        weights_of: A BERT with the same settings whose weights are copied; None for random weights.

    Returns:
        The model.
    """
    bert = create_BERT(**settings)
    if weights_of is not None:
        for target, source in zip(bert.weights, weights_of.weights, strict=True):
            target.assign(source)
    return bert


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=_HUB_FILES)
        )
    except Exception as error:  # the hub client, the network and the name raise many types
        msg = (
            f"{name} is not a folder, and its download from the Hugging Face Hub failed "
            f"({type(error).__name__}): give a folder with config.json and model.safetensors, "
            "or the name of a model on the Hub"
        )
        raise KerasBertError(msg) from error


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Set Keras's global dtype policy for the duration of the context."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
