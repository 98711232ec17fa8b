"""Fine-tuning of a BERT for text classification."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from datamodules.reading.splits import random_split, shared_keys, stratified_split
from datamodules.reading.text_rows import TextSplit
from engine.command_line.shell import short_name
from keras_bert.data.batching import padding_share
from keras_bert.data.samples import CLASSES, sample_labelled
from keras_bert.data.texts import read_labelled
from keras_bert.errors import KerasBertError
from keras_bert.loading import load_network
from keras_bert.network.tasks import Classifier
from keras_bert.run_folder import KerasRunFolder, recorded
from keras_bert.settings import FinetuneSettings
from keras_bert.training.classification_data import TextData, prediction_table, text_data
from keras_bert.training.devices import devices, padding_of
from keras_bert.training.fit_record import fit_record
from keras_bert.training.fitting import fit
from keras_bert.training.logs import open_loggers
from keras_bert.training.metrics import classification_record, stage_metrics
from keras_bert.training.opening import open_run
from keras_bert.training.start_record import fingerprint, write_plan, write_start
from keras_bert.training.starting import make_bert, start
from keras_bert.training.trainable import Metrics, MetricSums, TrainableModel, TrainingPlan
from run_folders.files import write_atomically
from run_folders.kinds import metric_of

COMMAND = "finetune"
_VAL_SHARE = 10  # 1/10 of the rows are for validation
_SAMPLE_ROWS = {"train": 2000, "val": 300, "test": 500}


def finetune(settings: FinetuneSettings, path: Path) -> KerasRunFolder:
    """Train a classifier on a BERT, and predict the test split with its best epoch.

    The best epoch is selected on the validation split. The test split is predicted once.

    Args:
        settings: The options of the command.
        path: The run folder; ignored when `settings.resume` names the folder of an older run.

    Returns:
        The run folder, with checkpoints/best.keras (a `Classifier`), metrics.json and, if there is
        a test split, predictions/test.parquet.

    Raises:
        KerasBertError: If the settings, the model or the data cannot be used.
        DataError: If a file cannot be read.
    """
    settings, folder = open_run(settings, COMMAND, path)
    with recorded(folder), devices(settings):
        splits, classes = _splits(settings, folder)
        begun = start(settings, folder, splits["train"].texts)
        val_split = {"val_split": "stratified"} if settings.train and not settings.val else {}
        write_start(
            folder,
            COMMAND,
            settings,
            begun,
            _split_records(splits, classes),
            {"classes": classes, **val_split},
        )
        padding = padding_of(settings, begun.bert["maxlen"])
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
        with open_loggers(settings, folder) as row_loggers:
            fit(job, settings, folder, row_loggers)
        record = fit_record(folder.read_history(), job)
        folder.write_status("running", "test")
        best = load_network(folder.best_checkpoint)
        _predict(folder, best, data["val"], splits["val"], classes, "val")
        record["test"] = {}
        if "test" in splits:
            began = time.perf_counter()
            probabilities = _predict(folder, best, data["test"], splits["test"], classes, "test")
            record["seconds"]["test"] = round(time.perf_counter() - began, 3)
            record["test"] = classification_record(data["test"].labels, probabilities, classes)
        folder.write_json("metrics.json", record)
        folder.write_status("finished", "report")
    _print(record, folder)
    return folder


def _splits(
    settings: FinetuneSettings, folder: KerasRunFolder
) -> tuple[dict[str, TextSplit], list[str]]:
    """Return the splits train, val and, if given, test, and the classes.

    The classes are the training labels in alphabetical order.
    """
    if not settings.train:
        samples = {
            name: sample_labelled(settings.seed, rows, i)
            for i, (name, rows) in enumerate(_SAMPLE_ROWS.items())
        }
        return samples, list(CLASSES)
    columns, table_format = (settings.text_column, settings.label_column), settings.table_format
    train, classes = read_labelled(settings.train, *columns, table_format=table_format)
    if len(classes) < 2:  # noqa: PLR2004
        msg = (
            f"{settings.train} has only the label {classes[0]!r}: "
            "give a table with at least two labels"
        )
        raise KerasBertError(msg)
    files = {"val": settings.val, "test": settings.test}
    others = {
        name: read_labelled(file, *columns, classes, table_format)[0]
        for name, file in files.items()
        if file
    }
    if settings.val:
        return {"train": train, **others}, classes
    first, second = _parts(train, settings, folder)
    if not second:
        msg = (
            f"{settings.train} has no class with two rows, so no validation rows can be split off: "
            "give --val"
        )
        raise KerasBertError(msg)
    return {"train": train.take(first), "val": train.take(second), **others}, classes


def _parts(
    train: TextSplit, settings: FinetuneSettings, folder: KerasRunFolder
) -> tuple[list[int], list[int]]:
    """Return the positions of the training rows and of the validation rows."""
    # Version 0.1, which wrote no `val_split`, drew the validation rows without stratification.
    if settings.resume and "val_split" not in folder.read_config():
        return random_split(
            len(train), max(1, len(train) // _VAL_SHARE) / len(train), settings.seed
        )
    return stratified_split(train.labels, 1 / _VAL_SHARE, settings.seed)


def _split_records(splits: dict[str, TextSplit], classes: list[str]) -> dict[str, Any]:
    """Return the entries of provenance.json: rows and hash of each split, and shared texts."""
    records: dict[str, Any] = {
        name: {
            "rows": len(split),
            "sha256": fingerprint(
                word for _, text, k in split.rows() for word in (text, classes[k])
            ),
        }
        for name, split in splits.items()
    }
    shared = shared_keys({name: split.sample_keys for name, split in splits.items()})
    records["overlaps"] = [
        {"splits": list(pair), "what": "texts", "count": len(texts), "examples": texts[:3]}
        for pair, texts in shared.items()
    ]
    return records


def measure_classes(targets: dict[str, Any], logits: Any) -> dict[str, MetricSums]:  # noqa: ANN401 - a tensor
    """Return the metrics of a batch.

    Args:
        targets: `labels` [B], class indices; `share` [B], 1 / batch size.
        logits: [B, K].

    Returns:
        MetricSums of `loss` (negative log-likelihood, nats) and `acc`.
    """
    labels = targets["labels"]
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    hits = tf.cast(tf.argmax(logits, axis=-1) == tf.cast(labels, tf.int64), tf.float32)
    count = tf.cast(tf.size(loss), tf.float32)
    return {
        "loss": MetricSums(tf.reduce_sum(loss), count, tf.reduce_sum(loss * targets["share"])),
        "acc": MetricSums(tf.reduce_sum(hits), count),
    }


def _job(
    settings: FinetuneSettings, network: Classifier, data: dict[str, TextData]
) -> TrainingPlan:
    bert = {id(weight) for weight in network.bert.weights}
    train, val = data["train"], data["val"]

    def validate(model: TrainableModel) -> Metrics:
        return stage_metrics(val.labels, val.probabilities(model))

    batches = train.order(0, settings.batch_size, settings.seed)
    return TrainingPlan(
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
        mode=metric_of("acc").better,
        lrs={"features": None if settings.freeze else settings.bert_lr, "head": settings.lr},
        head=[weight for weight in network.weights if id(weight) not in bert],
    )


def _predict(
    folder: KerasRunFolder,
    best: Classifier,
    data: TextData,
    split: TextSplit,
    classes: list[str],
    name: str,
) -> NDArray[np.float64]:
    """Predict a split with the best weights, write the table, and return the probabilities."""
    probabilities = data.probabilities(best)
    table = prediction_table(probabilities, classes, split.texts)
    table.insert(0, "index", np.arange(len(table)))
    table.insert(1, "label", [classes[k] for k in split.labels])
    path = folder.predictions_of(name)
    write_atomically(path, lambda part: table.to_parquet(part, index=False))
    return probabilities


def _print(record: dict[str, Any], folder: KerasRunFolder) -> None:
    for name in ("val", "test"):
        metrics = record[name]
        if metrics:
            summary = ", ".join(
                f"{name} {metric_of(name).text(metrics[name])}"
                for name in ("acc", "f1_macro", "loss")
            )
            print(f"{name}: {summary} (n {metrics['n']})")
    print(f"best epoch {record['best']['epoch']}; run folder: {folder.path}")
    print(f"to write its report: {short_name('report')} {folder.path}")
