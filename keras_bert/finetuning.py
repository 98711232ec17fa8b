"""Fine-tuning of a BERT for the classification of texts."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from datamodules.reading.splits import random_split, shared_contents
from datamodules.reading.text_rows import TextSplit
from keras_bert.batching import padding_share
from keras_bert.classification_data import TextData, prediction_table, text_data
from keras_bert.errors import KerasBertError
from keras_bert.fitting import Job, Metrics, Sums, Trained, fit, fit_record
from keras_bert.loading import load_network
from keras_bert.logs import sinks
from keras_bert.metrics import classification_record, stage_metrics
from keras_bert.model import Classifier
from keras_bert.run_folder import KerasRunFolder, recorded
from keras_bert.running import (
    devices,
    fingerprint,
    make_bert,
    opened,
    padding_of,
    start,
    write_plan,
    write_start,
)
from keras_bert.samples import CLASSES, sample_labelled
from keras_bert.settings import FinetuneSettings
from keras_bert.texts import read_labelled
from run_folders.metrics import METRICS
from run_folders.run_folder import write_atomically

COMMAND = "finetune"
_VAL_SHARE = 10
_SAMPLE_ROWS = {"train": 2000, "val": 300, "test": 500}


def finetune(settings: FinetuneSettings, path: Path) -> KerasRunFolder:
    """Train a classifier on a BERT, choose the epoch on validation, and predict the test split once.

    Args:
        settings: Everything that can be set.
        path: The run folder; of a run that goes on, its own is used.

    Returns:
        The run folder, which holds checkpoints/best.keras (a `Classifier`), metrics.json and
        predictions/test.parquet.

    Raises:
        KerasBertError: If something asked for cannot be done.
        DataError: If a file cannot be read.
    """
    settings, folder = opened(settings, COMMAND, path)
    with recorded(folder), devices(settings):
        splits, classes = _splits(settings, folder)
        begun = start(settings, folder, splits["train"].texts)
        division = {"val_split": "stratified"} if settings.train and not settings.val else {}
        write_start(
            folder,
            COMMAND,
            settings,
            begun,
            _found(splits, classes),
            {"classes": classes, **division},
        )
        padding = padding_of(settings, begun)
        data = {
            name: text_data(split.texts, split.labels, begun, padding)
            for name, split in splits.items()
        }
        network = Classifier(
            make_bert(begun),
            len(classes),
            frozen=settings.freeze,
            gru_units=settings.gru_units,
            dropout=settings.dropout,
        )
        job = _job(settings, network, data)
        write_plan(folder, job, settings, {name: len(split) for name, split in splits.items()})
        folder.write_status("running", "fit")
        with sinks(settings, folder) as written_to:
            fit(job, settings, folder, written_to)
        record = fit_record(folder.read_history(), job)
        folder.write_status("running", "test")
        record["test"] = (
            _test(folder, data["test"], splits["test"], classes, record) if "test" in splits else {}
        )
        folder.write_json("metrics.json", record)
        folder.write_status("finished", "report")
    _print(record, folder)
    return folder


def _splits(
    settings: FinetuneSettings, folder: KerasRunFolder
) -> tuple[dict[str, TextSplit], list[str]]:
    """Train, val and, where there is one, test; and the classes, which are the training labels in alphabetical order."""
    if not settings.train:
        samples = {
            name: sample_labelled(settings.seed, rows, i)
            for i, (name, rows) in enumerate(_SAMPLE_ROWS.items())
        }
        return samples, list(CLASSES)
    columns = (settings.text_column, settings.label_column)
    train, classes = read_labelled(settings.train, *columns)
    if len(classes) < 2:  # noqa: PLR2004
        msg = f"{settings.train} has the label {classes[0]!r} alone: a classification needs two"
        raise KerasBertError(msg)
    files = {"val": settings.val, "test": settings.test}
    others = {
        name: read_labelled(file, *columns, classes)[0] for name, file in files.items() if file
    }
    if settings.val:
        return {"train": train, **others}, classes
    first, second = _parts(train, settings, folder)
    if not second:
        msg = f"{settings.train} has no class with two rows, of which one could be kept for validation: give --val"
        raise KerasBertError(msg)
    return {"train": train.take(first), "val": train.take(second), **others}, classes


def _parts(
    train: TextSplit, settings: FinetuneSettings, folder: KerasRunFolder
) -> tuple[list[int], list[int]]:
    """Positions of the rows to train on and of those to validate on."""
    if (
        settings.resume and "val_split" not in folder.read_config()
    ):  # begun by 0.1, which drew from all classes together
        return random_split(
            len(train), max(1, len(train) // _VAL_SHARE) / len(train), settings.seed
        )
    return train.divided(1 / _VAL_SHARE, settings.seed)


def _found(splits: dict[str, TextSplit], classes: list[str]) -> dict[str, Any]:
    """What provenance.json says of the splits: rows, hashes, and texts that stand in two of them."""
    found: dict[str, Any] = {
        name: {
            "rows": len(split),
            "sha256": fingerprint(
                word for _, text, k in split.rows() for word in (text, classes[k])
            ),
        }
        for name, split in splits.items()
    }
    shared = shared_contents({name: split.contents() for name, split in splits.items()})
    found["overlaps"] = [
        {"splits": list(pair), "what": "texts", "count": len(texts), "examples": texts[:3]}
        for pair, texts in shared.items()
    ]
    return found


def measure_classes(targets: dict[str, Any], logits: Any) -> dict[str, Sums]:  # noqa: ANN401 - a tensor
    """Metrics of a batch.

    Args:
        targets: `labels` [B], numbers of classes; `share` [B], what each text is of all in the
            batch.
        logits: [B, K].

    Returns:
        Sums of `loss` (negative log-likelihood, nats) and `acc`.
    """
    labels = targets["labels"]
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    hits = tf.cast(tf.argmax(logits, axis=-1) == tf.cast(labels, tf.int64), tf.float32)
    count = tf.cast(tf.size(loss), tf.float32)
    return {
        "loss": Sums(tf.reduce_sum(loss), count, tf.reduce_sum(loss * targets["share"])),
        "acc": Sums(tf.reduce_sum(hits), count),
    }


def _job(settings: FinetuneSettings, network: Classifier, data: dict[str, TextData]) -> Job:
    bert = {id(weight) for weight in network.bert.weights}
    train, val = data["train"], data["val"]

    def validate(model: Trained) -> Metrics:
        return stage_metrics(val.labels, val.probabilities(model))

    batches = train.order(0, settings.batch_size, settings.seed)
    return Job(
        network=network,
        measure=measure_classes,
        names=("loss", "acc"),
        batches=lambda first: train.training(
            range(first, settings.epochs), settings.batch_size, settings.seed
        ),
        steps=len(batches),
        texts=len(train.labels),
        padding_share=padding_share(train.store.lengths + 2, batches, train.padding),
        validate=validate,
        monitor="val/acc",
        mode=METRICS["acc"].better,
        lrs={"features": None if settings.freeze else settings.bert_lr, "head": settings.lr},
        head=[weight for weight in network.weights if id(weight) not in bert],
    )


def _test(
    folder: KerasRunFolder,
    data: TextData,
    split: TextSplit,
    classes: list[str],
    record: dict[str, Any],
) -> dict[str, Any]:
    """Predict the test split with the best weights, write its table, and give its part of metrics.json."""
    began = time.perf_counter()
    probabilities = data.probabilities(load_network(folder.best_checkpoint))
    record["seconds"]["test"] = round(time.perf_counter() - began, 3)
    table = prediction_table(probabilities, classes, split.texts)
    table.insert(0, "index", np.arange(len(table)))
    table.insert(1, "label", [classes[k] for k in split.labels])
    write_atomically(folder.predictions, lambda path: table.to_parquet(path, index=False))
    return classification_record(data.labels, probabilities, classes)


def _print(record: dict[str, Any], folder: KerasRunFolder) -> None:
    for name in ("val", "test"):
        metrics = record[name]
        if metrics:
            shown = ", ".join(
                f"{name} {METRICS[name].text(metrics[name])}"
                for name in ("acc", "f1_macro", "loss")
            )
            print(f"{name}: {shown} (n {metrics['n']})")
    print(f"best epoch {record['best']['epoch']}; run folder: {folder.path}")
    print(f"its page: python scripts/report.py {folder.path}")
