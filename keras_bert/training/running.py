"""Parts shared by pretraining and fine-tuning.

These are devices, seeds, the model, the tokenizer, and the files written before training.
"""

import hashlib
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf
from tokenizers import Tokenizer

from engine.provenance import provenance
from keras_bert.data.batching import Padding
from keras_bert.data.tokenizing import FILE, load_tokenizer, token_id, train_tokenizer
from keras_bert.errors import KerasBertError
from keras_bert.loading import bert_of, find_source, fresh_bert, precision
from keras_bert.network.model import create_BERT, settings_of
from keras_bert.run_folder import KerasRunFolder
from keras_bert.training.fitting import TrainingPlan, uses_xla
from keras_bert.training.settings import TrainingSettings
from run_folders.files import make_folder, write_text

Settings = TypeVar("Settings", bound=TrainingSettings)

_PACKAGES = ("thaw", "tensorflow", "keras", "tokenizers", "scikit-learn", "numpy", "pandas")
_FILES = ("text", "val_text", "train", "val", "test", "tokenizer")
MULTIPLE, _XLA_MULTIPLE = 8, 32  # padded lengths are multiples of these, in tokens


@dataclass(frozen=True)
class Start:
    """Tokenizer, sizes and weights that training starts from.

    Attributes:
        tokenizer: The tokenizer.
        bert: Arguments of `create_BERT`.
        weights: A BERT with the initial weights, or None for random weights.
    """

    tokenizer: Tokenizer
    bert: dict[str, Any]
    weights: keras.Model | None


@contextmanager
def devices(settings: TrainingSettings) -> Iterator[tf.distribute.Strategy]:
    """Set the seeds, determinism, precision and distribution strategy from the settings."""
    keras.utils.clear_session()
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)
    gpus = tf.config.list_logical_devices("GPU")
    strategy = tf.distribute.get_strategy()
    if settings.strategy == "mirrored":
        strategy = tf.distribute.MirroredStrategy(gpus or tf.config.list_logical_devices("CPU"))
    replicas = strategy.num_replicas_in_sync
    if settings.batch_size % replicas:
        settings.raise_invalid_option("batch_size", f"give a multiple of the {replicas} devices")
    with precision(settings.precision), strategy.scope():
        yield strategy


def open_run(settings: Settings, command: str, path: Path) -> tuple[Settings, KerasRunFolder]:
    """Start a new run folder, or open the folder of the run to resume.

    Args:
        settings: The options of the command. If `resume` is set, all others are ignored.
        command: pretrain or finetune.
        path: The folder of a new run; if `out` is not set, the next free name is taken.

    Returns:
        The settings and the folder. A resumed run uses its saved settings.

    Raises:
        KerasBertError: If the new folder already contains a run, or if the folder to resume does
            not contain an unfinished run of this command.
    """
    if not settings.resume:
        folder = KerasRunFolder(path if settings.out else make_folder(path))
        # A run that ended before its first checkpoint may be overwritten.
        if folder.last_checkpoint.exists():
            finished = folder.read_json("status.json").get("state") == "finished"
            resume = "" if finished else f"give --resume {_word(folder)} to resume it, or "
            msg = f"{folder.path} holds a run already: {resume}give another --out"
            raise KerasBertError(msg)
        if folder.is_locked:
            msg = (
                f"{folder.path}: a run is still going on in it; wait for it, or give another --out"
            )
            raise KerasBertError(msg)
        folder.write_status("running", "setup")
        return settings, folder
    folder = KerasRunFolder(Path(settings.resume))
    config = folder.read_config()
    if config["command"] != command:
        msg = (
            f"{folder.path} is a run of {config['command']}: resume it with "
            f"python -m keras_bert {config['command']} --resume {_word(folder)}"
        )
        raise KerasBertError(msg)
    if folder.read_json("status.json").get("state") == "finished":
        msg = f"{folder.path} is finished: there is nothing to resume"
        raise KerasBertError(msg)
    known = {each.name for each in fields(settings)}
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k in known
    }
    return type(settings)(**{**values, "resume": str(folder.path)}), folder


def _word(folder: KerasRunFolder) -> str:
    """Return the folder's path as one word of a shell."""
    return shlex.quote(str(folder.path))


def start(settings: TrainingSettings, folder: KerasRunFolder, texts: Sequence[str]) -> Start:
    """Load or create the tokenizer and the model, and write the tokenizer to the run folder.

    Args:
        settings: The options of the command.
        folder: The run folder. A resumed run takes its sizes and its tokenizer from it.
        texts: Training texts, used if a tokenizer has to be trained.

    Returns:
        The tokenizer, sizes and weights to start from.

    Raises:
        KerasBertError: If the model or the tokenizer cannot be loaded, or if they do not match.
    """
    if folder.last_checkpoint.is_file():
        return Start(
            load_tokenizer(folder.path, clean_links=False), folder.read_config()["bert"], None
        )
    source = find_source(settings.model) if settings.model else None
    if settings.tokenizer:
        tokenizer = load_tokenizer(Path(settings.tokenizer), clean_links=settings.clean_links)
    elif source:
        tokenizer = load_tokenizer(
            source.folder, clean_links=settings.clean_links and not source.ours
        )
    else:
        tokenizer = train_tokenizer(texts, settings.vocab_size, clean_links=settings.clean_links)
    write_text(folder.path / FILE, tokenizer.to_str(pretty=True))
    num_tokens = 1 + max(tokenizer.get_vocab().values())
    if source is None:
        sizes = (
            "maxlen",
            "hidden_size",
            "num_layers",
            "num_att_heads",
            "intermediate_size",
            "drop_rate",
        )
        return Start(
            tokenizer,
            {"vocab_size": num_tokens, **{name: getattr(settings, name) for name in sizes}},
            None,
        )
    bert = bert_of(source.model)
    vocab_size = settings_of(bert)["vocab_size"]
    if num_tokens > vocab_size:
        msg = (
            f"the tokenizer has {num_tokens} tokens, but {settings.model} has only {vocab_size}: "
            "give the folder of the model's own tokenizer with --tokenizer"
        )
        raise KerasBertError(msg)
    if source.missing and not settings.random_weights:
        print(
            f"{settings.model} lacks {', '.join(source.missing)}: these weights start at random",
            flush=True,
        )
    return Start(tokenizer, settings_of(bert), None if settings.random_weights else bert)


def make_bert(begun: Start) -> keras.Model:
    """Create the BERT that training starts with.

    Raises:
        KerasBertError: If the sizes are invalid.
    """
    try:  # a small model checks the sizes quickly
        create_BERT(**{**begun.bert, "vocab_size": 1, "maxlen": 1, "num_layers": 1})
    except ValueError as error:
        raise KerasBertError(str(error)) from error
    return fresh_bert(begun.bert, begun.weights)


def write_start(
    folder: KerasRunFolder,
    command: str,
    settings: TrainingSettings,
    begun: Start,
    data: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    """Write config.yaml and provenance.json, or check the data of a resumed run.

    Args:
        folder: The run folder.
        command: pretrain or finetune.
        settings: The options of the command.
        begun: Tokenizer, sizes and weights that training starts from.
        data: Entries of the splits in provenance.json.
        extra: Further keys of config.yaml.

    Raises:
        KerasBertError: If the data of a resumed run have changed.
    """
    if folder.last_checkpoint.is_file():
        before = folder.read_json("provenance.json")["data"]
        for split, now in data.items():
            if split in before and split != "overlaps" and before[split] != now:
                msg = (
                    f"the {split} data have changed since {folder.path} started: "
                    "restore them, or start a new run"
                )
                raise KerasBertError(msg)
        return
    values = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(settings).items()
    }
    for key in _FILES:
        if values.get(key):
            given = values[key]
            values[key] = (
                [str(Path(each).resolve()) for each in given]
                if isinstance(given, list)
                else str(Path(given).resolve())
            )
    if settings.model and Path(settings.model).exists():
        values["model"] = str(Path(settings.model).resolve())
    del values["resume"], values["out"]
    folder.write_config(
        {"name": f"keras_{command}", "command": command, **values, "bert": begun.bert, **extra}
    )
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    folder.write_json(
        "provenance.json", provenance(settings.seed, data, _PACKAGES, os.cpu_count(), gpus)
    )


def fingerprint(lines: Iterable[str]) -> str:
    """Return the SHA-256 hash of the texts in order."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def special_pair(tokenizer: Tokenizer) -> tuple[int, int]:
    """Return the ids of [CLS] and [SEP]."""
    return token_id(tokenizer, "[CLS]"), token_id(tokenizer, "[SEP]")


def padding_of(settings: TrainingSettings, begun: Start) -> Padding:
    """Return the padding rule of a run.

    XLA compiles once per padded length, so with XLA there are fewer different lengths.
    """
    return Padding(_XLA_MULTIPLE if uses_xla(settings) else MULTIPLE, begun.bert["maxlen"])


def write_plan(
    folder: KerasRunFolder, job: TrainingPlan, settings: TrainingSettings, samples: dict[str, int]
) -> None:
    """Write plan.json: modules, parameter counts and learning rates."""
    bert, network = bert_of(job.network), job.network
    modules: list[tuple[str, int, Any]] = [
        ("features", 0, bert),
        *((f"features.{layer.name}", 1, layer) for layer in bert.layers if layer.weights),
    ]
    rows = [
        _plan_row(name, depth, module.weights, module.trainable_weights, job.lrs["features"])
        for name, depth, module in modules
    ]
    rows.append(_plan_row("head", 0, job.head, job.head, job.lrs["head"]))
    sizes = {"total": _count(network.weights), "trainable": _count(network.trainable_weights)}
    device_kind = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    plan = {
        "rows": rows,
        "parameters": sizes,
        "batches_per_epoch": job.steps,
        "max_epochs": settings.epochs,
        "precision": settings.precision,
        "device": f"{replicas} x {device_kind}",
        "xla": uses_xla(settings),
        "stages": [],
        "samples": samples,
        "padding_share": job.padding_share,
    }
    folder.write_json("plan.json", plan)


def _plan_row(
    name: str, depth: int, weights: list[Any], trainable: list[Any], lr: float | None
) -> dict[str, Any]:
    trains = bool(trainable)
    return {
        "module": name,
        "depth": depth,
        "parameters": _count(weights),
        "trainable": _count(trainable),
        "mode": "train" if trains else "eval",
        "lr": lr if trains else None,
        "first_epoch": 0 if trains else None,
    }


def _count(variables: Sequence[Any]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)
