"""Fine-tuning of a BERT for the classification of texts."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bert.batching import padding_share
from keras_bert.classification_data import TextData, prediction_table, text_data
from keras_bert.ending import recorded
from keras_bert.errors import KerasBertError
from keras_bert.figures import classification_record, stage_figures
from keras_bert.fitting import Figures, Job, Sums, Trained, fit, fit_record
from keras_bert.loading import load_network
from keras_bert.logs import sinks
from keras_bert.model import Classifier
from keras_bert.run_folder import RunFolder, fingerprint
from keras_bert.running import (
    devices,
    make_bert,
    opened,
    padding_of,
    start,
    write_plan,
    write_start,
)
from keras_bert.samples import sample_labelled
from keras_bert.settings import FinetuneSettings
from keras_bert.texts import LabelledTexts, read_labelled

COMMAND = "finetune"
_VAL_SHARE = 10
_SAMPLE_ROWS = {"train": 2000, "val": 300, "test": 500}


def finetune(settings: FinetuneSettings, path: Path) -> RunFolder:
    """Train a classifier on a BERT, choose the epoch on validation, and predict the test split once.

    Args:
        settings: Everything that can be set.
        path: The run folder; of a run that goes on, its own is used.

    Returns:
        The run folder, which holds checkpoints/best.keras (a `Classifier`), metrics.json and predictions/test.parquet.

    Raises:
        KerasBertError: If something asked for cannot be done.
    """
    settings, folder = opened(settings, COMMAND, path)
    with recorded(folder), devices(settings):
        splits = _splits(settings)
        classes = _classes(splits)
        begun = start(settings, folder, splits["train"].texts)
        write_start(folder, COMMAND, settings, begun, _found(splits), {"classes": classes})
        padding = padding_of(settings, begun)
        data = {
            name: text_data(split.texts, [classes.index(label) for label in split.labels], begun, padding)
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
        write_plan(folder, job, settings, {name: len(split.texts) for name, split in splits.items()})
        folder.write_status("running", "fit")
        with sinks(settings, folder) as written_to:
            fit(job, settings, folder, written_to)
        record = fit_record(folder.read_history(), job)
        folder.write_status("running", "test")
        record["test"] = _test(folder, data["test"], splits["test"], classes, record) if "test" in splits else {}
        folder.write_json("metrics.json", record)
        folder.write_status("finished", "report")
    _print(record, folder)
    return folder


def _splits(settings: FinetuneSettings) -> dict[str, LabelledTexts]:
    """Train, val and, where there is one, test."""
    if not settings.train:
        return {name: sample_labelled(settings.seed, rows, i) for i, (name, rows) in enumerate(_SAMPLE_ROWS.items())}
    files = {"train": settings.train, "val": settings.val, "test": settings.test}
    splits = {name: read_labelled(file, settings.text_column, settings.label_column) for name, file in files.items() if file}
    if "val" not in splits:
        train = splits["train"]
        order = np.random.default_rng(settings.seed).permutation(len(train.texts))
        cut = max(1, len(order) // _VAL_SHARE)
        if cut == len(order):
            msg = f"{train.source} has 1 row, of which none can be kept for validation: give --val"
            raise KerasBertError(msg)
        splits |= {"train": train.take(sorted(order[cut:].tolist())), "val": train.take(sorted(order[:cut].tolist()))}
    return splits


def _classes(splits: dict[str, LabelledTexts]) -> list[str]:
    """The training split's labels in alphabetical order; the others may have no further ones."""
    classes = sorted(set(splits["train"].labels))
    if len(classes) < 2:  # noqa: PLR2004
        msg = f"{splits['train'].source} has the label {classes[0]!r} alone: a classification needs two"
        raise KerasBertError(msg)
    for split in splits.values():
        for row, label in enumerate(split.labels, 1):
            if label not in classes:
                msg = f"{split.source}, row {row}: label {label!r} is none of the training labels {', '.join(classes)}"
                raise KerasBertError(msg)
    return classes


def _found(splits: dict[str, LabelledTexts]) -> dict[str, Any]:
    """What provenance.json says of the splits: rows, hashes, and texts that stand in two of them."""
    found: dict[str, Any] = {
        name: {
            "rows": len(split.texts),
            "sha256": fingerprint(value for pair in zip(split.texts, split.labels, strict=True) for value in pair),
        }
        for name, split in splits.items()
    }
    names, overlaps = list(splits), []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            known = set(splits[first].texts)
            shared = [text for text in dict.fromkeys(splits[second].texts) if text in known]
            if shared:
                overlaps.append({"splits": [first, second], "what": "texts", "count": len(shared), "examples": shared[:3]})
    return {**found, "overlaps": overlaps}


def measure_classes(targets: dict[str, Any], logits: Any) -> dict[str, Sums]:  # noqa: ANN401 - a tensor
    """Figures of a batch.

    Args:
        targets: `labels` [B], numbers of classes; `share` [B], what each text is of all in the batch.
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

    def validate(model: Trained) -> Figures:
        return stage_figures(val.labels, val.probabilities(model))

    batches = train.order(0, settings.batch_size, settings.seed)
    return Job(
        network=network,
        measure=measure_classes,
        names=("loss", "acc"),
        batches=lambda first: train.training(range(first, settings.epochs), settings.batch_size, settings.seed),
        steps=len(batches),
        texts=len(train.labels),
        padding_share=padding_share(train.store.lengths + 2, batches, train.padding),
        validate=validate,
        monitor="val/acc",
        mode="max",
        lrs={"features": None if settings.freeze else settings.bert_lr, "head": settings.lr},
        head=[weight for weight in network.weights if id(weight) not in bert],
    )


def _test(
    folder: RunFolder, data: TextData, split: LabelledTexts, classes: list[str], record: dict[str, Any]
) -> dict[str, Any]:
    """Predict the test split with the best weights, write its table, and give its part of metrics.json."""
    began = time.perf_counter()
    probabilities = data.probabilities(load_network(folder.best))
    record["seconds"]["test"] = round(time.perf_counter() - began, 3)
    table = prediction_table(probabilities, classes, split.texts)
    table.insert(0, "index", np.arange(len(table)))
    table.insert(1, "label", split.labels)
    folder.write(folder.predictions, lambda path: table.to_parquet(path, index=False))
    return classification_record(data.labels, probabilities, classes)


def _print(record: dict[str, Any], folder: RunFolder) -> None:
    for name in ("val", "test"):
        figures = record[name]
        if figures:
            shown = ", ".join(f"{key} {figures[key]:.4f}" for key in ("acc", "f1_macro", "loss"))
            print(f"{name}: {shown} (n {figures['n']})")
    print(f"best epoch {record['best']['epoch']}; run folder: {folder.path}")
    print(f"its page: python scripts/report.py {folder.path}")
