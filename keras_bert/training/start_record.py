"""The files that a run writes before it trains: config.yaml, provenance.json, plan.json."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from engine.provenance import provenance
from keras_bert.errors import KerasBertError
from keras_bert.loading import bert_of
from keras_bert.run_folder import KerasRunFolder
from keras_bert.settings import TrainingSettings
from keras_bert.training.devices import uses_xla
from keras_bert.training.starting import Start
from keras_bert.training.trainable import TrainingPlan

_PACKAGES = ("thaw", "tensorflow", "keras", "tokenizers", "scikit-learn", "numpy", "pandas")
_FILES = ("text", "val_text", "train", "val", "test", "tokenizer")


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
