"""Masked-language-model pretraining with optional next-sentence prediction."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from datamodules.reading.splits import random_split
from keras_bert.data.masking import Masking
from keras_bert.data.pretraining_data import PretrainingData, split_into_pieces, unigram_entropy
from keras_bert.data.samples import sample_documents
from keras_bert.data.texts import read_documents
from keras_bert.data.tokenizing import special_pair
from keras_bert.errors import KerasBertError
from keras_bert.network.tasks import PretrainingModel
from keras_bert.run_folder import KerasRunFolder, recorded
from keras_bert.settings import PretrainSettings
from keras_bert.training.devices import devices, padding_of
from keras_bert.training.fit_record import fit_record
from keras_bert.training.fitting import fit
from keras_bert.training.logs import open_loggers
from keras_bert.training.opening import open_run
from keras_bert.training.start_record import fingerprint, write_plan, write_start
from keras_bert.training.starting import Start, make_bert, start
from keras_bert.training.trainable import Metrics, MetricSums, TrainableModel, TrainingPlan
from run_folders.kinds import metric_of

COMMAND = "pretrain"
_VAL_SHARE = 20  # 1/20 of the documents are for validation


def pretrain(settings: PretrainSettings, path: Path) -> KerasRunFolder:
    """Pretrain a BERT.

    Args:
        settings: The options of the command.
        path: The run folder; ignored when `settings.resume` names the folder of an older run.

    Returns:
        The run folder, with checkpoints/best.keras (a `PretrainingModel`) and metrics.json.

    Raises:
        KerasBertError: If the settings, the model or the data cannot be used.
        DataError: If a file cannot be read.
    """
    settings, folder = open_run(settings, COMMAND, path)
    with recorded(folder), devices(settings):
        documents = dict(zip(("train", "val"), _documents(settings), strict=True))
        begun = start(
            settings, folder, [text for document in documents["train"] for text in document]
        )
        data = {split: _data(settings, begun, split, part) for split, part in documents.items()}
        records = {split: _split_record(part) for split, part in documents.items()}
        write_start(folder, COMMAND, settings, begun, records, {})
        job = _job(settings, PretrainingModel(make_bert(begun), next_sentence=settings.nsp), data)
        write_plan(
            folder, job, settings, {split: len(part.pieces.first) for split, part in data.items()}
        )
        folder.write_status("running", "fit")
        with open_loggers(settings, folder) as row_loggers:
            fit(job, settings, folder, row_loggers)
        record = fit_record(folder.read_history(), job)
        entropy = unigram_entropy(data["val"].validation())
        record["val"] |= {
            "perplexity": float(np.exp(record["val"]["loss"])),
            "unigram_entropy": entropy,
        }
        folder.write_json("metrics.json", {**record, "test": {}})
        folder.write_status("finished", "report")
    _print(record, folder)
    return folder


def _documents(settings: PretrainSettings) -> tuple[list[list[str]], list[list[str]]]:
    """Return the training and the validation documents."""
    train = (
        read_documents(settings.text, settings.text_column, settings.table_format)
        if settings.text
        else sample_documents(settings.seed)
    )
    if settings.val_text:
        return train, read_documents(settings.val_text, settings.text_column, settings.table_format)
    if len(train) < 2:  # noqa: PLR2004
        msg = (
            f"--text has {len(train)} document, too few to split off a validation document: "
            "give --val-text"
        )
        raise KerasBertError(msg)
    num_val = max(1 + settings.nsp, len(train) // _VAL_SHARE)
    first, second = random_split(len(train), num_val / len(train), settings.seed)
    return [train[i] for i in first], [train[i] for i in second]


def _split_record(documents: list[list[str]]) -> dict[str, Any]:
    """Return the entry of a split in provenance.json: number of documents and hash."""
    return {
        "rows": len(documents),
        "sha256": fingerprint(line for document in documents for line in [*document, ""]),
    }


def _data(
    settings: PretrainSettings, begun: Start, split: str, documents: list[list[str]]
) -> PretrainingData:
    try:
        pieces = split_into_pieces(
            documents, begun.tokenizer, begun.bert["maxlen"], next_sentence=settings.nsp
        )
    except KerasBertError as error:
        msg = f"{split}: {error}"
        raise KerasBertError(msg) from error
    masking = Masking.of(begun.tokenizer, settings.mask_rate)
    padding = padding_of(settings, begun.bert["maxlen"])
    return PretrainingData(
        pieces,
        masking,
        special_pair(begun.tokenizer),
        settings.nsp,
        settings.batch_size,
        settings.seed,
        padding,
    )


def _job(
    settings: PretrainSettings, network: PretrainingModel, data: dict[str, PretrainingData]
) -> TrainingPlan:
    bert = {id(weight) for weight in network.bert.weights}
    validation = data["val"].validation()

    def validate(model: TrainableModel) -> Metrics:
        model.evaluate(validation, verbose=0)
        return model.epoch_metrics()

    return TrainingPlan(
        network=network,
        measure=measure_pretraining,
        names=("loss", "acc", "nsp_loss", "nsp_acc") if settings.nsp else ("loss", "acc"),
        batches=lambda first: data["train"].training(range(first, settings.epochs)),
        steps=data["train"].steps,
        texts=len(data["train"].pieces.first),
        padding_share=data["train"].padding_share(),
        validate=validate,
        monitor="val/loss",
        mode=metric_of("loss").better,
        lrs={"features": settings.lr, "head": settings.lr},
        head=[weight for weight in network.weights if id(weight) not in bert],
    )


def _print(record: dict[str, Any], folder: KerasRunFolder) -> None:
    val, best = record["val"], record["best"]
    loss, accuracy = (metric_of(name).text(val[name]) for name in ("loss", "acc"))
    entropy = metric_of("loss").text(val["unigram_entropy"])
    print(f"best epoch {best['epoch']}: masked-LM validation loss {loss} nats, accuracy {accuracy}")
    print(f"unigram entropy of the {val['n']} chosen tokens: {entropy} nats")
    print(
        f"to fine-tune it: python -m keras_bert finetune --model {folder.path} "
        "--train CSV --val CSV --test CSV"
    )


def measure_pretraining(targets: dict[str, Any], outputs: dict[str, Any]) -> dict[str, MetricSums]:
    """Return the metrics of a batch.

    `loss` and `acc` cover the chosen tokens only, `nsp_loss` and `nsp_acc` the text pairs.

    Args:
        targets: Token ids `mlm` [B, P]; `chosen` [B, P], 1 for chosen tokens, else 0; `share`
            [B, P], `chosen` divided by the number of chosen tokens in the batch. With next-sentence
            prediction also `nsp` [B] and `nsp_share` [B], 1 / batch size.
        outputs: Outputs of a `PretrainingModel`.

    Returns:
        MetricSums per metric; losses are negative log-likelihoods in nats.
    """
    count = tf.reduce_sum(targets["chosen"])
    loss, hits = _loss_and_hits(targets["mlm"], outputs["mlm"])
    sums = {
        "loss": MetricSums(
            tf.reduce_sum(loss * targets["chosen"]), count, tf.reduce_sum(loss * targets["share"])
        ),
        "acc": MetricSums(tf.reduce_sum(hits * targets["chosen"]), count),
    }
    if "nsp" in outputs:
        loss, hits = _loss_and_hits(targets["nsp"], outputs["nsp"])
        pairs = tf.cast(tf.size(loss), tf.float32)
        share = tf.reduce_sum(loss * targets["nsp_share"])
        sums |= {
            "nsp_loss": MetricSums(tf.reduce_sum(loss), pairs, share),
            "nsp_acc": MetricSums(tf.reduce_sum(hits), pairs),
        }
    return sums


def _loss_and_hits(targets: Any, logits: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return loss and hit (1 or 0) of each target, in the shape of `targets`."""
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    return loss, tf.cast(
        tf.argmax(logits, axis=-1, output_type=targets.dtype) == targets, tf.float32
    )
