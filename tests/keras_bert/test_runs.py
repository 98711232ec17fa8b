"""Runs through the command line: files, resuming, early stopping, prediction, reports, errors."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("tensorflow", reason="the extra keras is not installed")

import keras
import tensorflow as tf
from transformers import AutoTokenizer, BertForMaskedLM

from datamodules.reading.splits import random_split, stratified_split
from engine.processes.signals import InterruptedRunError
from keras_bert.loading import load_network
from keras_bert.run_folder import KerasRunFolder
from keras_bert.settings import FinetuneSettings, PretrainSettings
from keras_bert.training import finetuning, pretraining
from keras_bert.training.devices import uses_xla
from keras_bert.training.fit_record import best_epoch
from keras_bert.training.state import State
from reports.comparison import write_comparison
from reports.page import write_report
from tests.conftest import Ended, Train, made_rows, write_csv
from tests.keras_bert.conftest import SMALL, Command

SECONDS = ("seconds", "train/seconds", "train/samples_per_second")


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    """Arguments that name three small tables."""
    arguments = []
    for name, count, seed in (("train", 48, 1), ("val", 24, 2), ("test", 27, 3)):
        path = write_csv(
            tmp_path / "data" / "covid_fake_news" / f"{name}.csv", made_rows(count, seed)
        )
        arguments += [f"--{name}", str(path)]
    return [*arguments, "--text-column", "tweet", "--batch-size", "16", *SMALL]


@pytest.fixture
def corpus(tmp_path: Path) -> list[str]:
    """Arguments that name a small text file."""
    documents = "\n\n".join(
        f"{a} and {b}. They say so.\nBut {b}, they say."
        for _, a, _ in made_rows(24, 1)
        for b in ("masks", "cure")
    )
    (tmp_path / "text.txt").write_text(documents)
    return ["--text", str(tmp_path / "text.txt"), "--batch-size", "16", "--maxlen", "32", *SMALL]


def history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "history.csv")


def read(folder: Path, name: str) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / name).read_text())
    return content


def same_curve(a: Path, b: Path) -> None:
    pd.testing.assert_frame_equal(
        history(a).drop(columns=[*SECONDS]), history(b).drop(columns=[*SECONDS]), check_exact=True
    )
    first, second = (load_network(folder / "checkpoints" / "best.keras") for folder in (a, b))
    for ours, theirs in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def stop_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save = State.save

    def stopping(self: State, saved: int) -> None:
        save(self, saved)
        if saved == epoch:
            raise InterruptedRunError(15)

    monkeypatch.setattr(State, "save", stopping)


def test_from_text_to_predictions(
    command: Command, corpus: list[str], tables: list[str], tmp_path: Path
) -> None:
    """Pretraining, fine-tuning on it, prediction, Hugging Face's layout, and the page of each run."""
    pretrained = command(
        "pretrain", *corpus, "--epochs", "2", "--nsp", folder=tmp_path / "pretrained"
    )
    assert pretrained.code == 0, pretrained.err
    assert "unigram entropy" in pretrained.out
    metrics = read(pretrained.folder, "metrics.json")
    assert {"n", "loss", "acc", "nsp_loss", "nsp_acc", "perplexity", "unigram_entropy"} == set(
        metrics["val"]
    )
    assert metrics["val"]["perplexity"] == pytest.approx(math.exp(metrics["val"]["loss"]))
    assert metrics["best"]["monitor"] == "val/loss"
    assert read(pretrained.folder, "status.json")["state"] == "finished"
    assert "perplexity" not in history(pretrained.folder)
    assert write_report(pretrained.folder).is_file()

    tuned = command(
        "finetune",
        *tables,
        "--epochs",
        "2",
        "--model",
        str(pretrained.folder),
        "--wandb",
        folder=tmp_path / "tuned",
    )
    assert tuned.code == 0, tuned.err
    assert list((tuned.folder / "wandb").glob("offline-run-*/*.wandb"))
    config = yaml.safe_load((tuned.folder / "config.yaml").read_text())
    assert config["bert"]["maxlen"] == 32  # from the model, not from the settings
    assert config["classes"] == ["fake", "real"]
    before, after = (
        (folder / "tokenizer.json").read_text() for folder in (pretrained.folder, tuned.folder)
    )
    assert before == after
    metrics = read(tuned.folder, "metrics.json")
    assert metrics["test"]["n"] == 27
    assert sum(map(sum, metrics["test"]["confusion_matrix"])) == 27
    assert metrics["parameters"]["total"] == metrics["parameters"]["trainable"]
    table = pd.read_parquet(tuned.folder / "predictions" / "test.parquet")
    assert table.columns.tolist() == [
        "index",
        "label",
        "prediction",
        "probability_fake",
        "probability_real",
        "text",
    ]
    assert (table["label"] == table["prediction"]).mean() == pytest.approx(metrics["test"]["acc"])

    test = tables[tables.index("--test") + 1]
    done = command(
        "predict",
        str(tuned.folder),
        test,
        "--text-column",
        "tweet",
        "--out",
        str(tmp_path / "out.csv"),
    )
    assert done.code == 0, done.err
    predicted = pd.read_csv(tmp_path / "out.csv")
    assert predicted["prediction"].tolist() == table["prediction"].tolist()
    np.testing.assert_allclose(predicted["probability_real"], table["probability_real"], atol=1e-5)

    done = command("convert", str(pretrained.folder), "--out", str(tmp_path / "hf"))
    assert done.code == 0, done.err
    theirs = BertForMaskedLM.from_pretrained(tmp_path / "hf")
    assert theirs.config.hidden_size == 16
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").vocab_size == theirs.config.vocab_size
    assert (
        "has a config.json already"
        in command("convert", str(pretrained.folder), "--out", str(tmp_path / "hf")).error
    )


def test_a_keras_run_is_compared_with_a_lightning_run(
    command: Command, tables: list[str], train: Train, tiny_backbone: Path, tmp_path: Path
) -> None:
    ours = command(
        "finetune",
        *tables,
        "--epochs",
        "1",
        "--gru-units",
        "4",
        "--freeze",
        folder=tmp_path / "runs" / "keras",
    )
    assert ours.code == 0, ours.err
    theirs = train(
        "experiment=bert_bigru_finetune", f"model.backbone={tiny_backbone}", f"paths.data_dir={tmp_path / 'data'}",
        "trainer.max_epochs=1", "model.head.hidden=8", folder=tmp_path / "runs" / "lightning",
    )  # fmt: skip
    assert theirs.code == 0, theirs.err
    page = write_comparison([theirs.folder, ours.folder], tmp_path / "page.html").read_text()
    assert "not the same test samples" not in page
    assert "runs/keras" in page
    assert "validation accuracy" in page.lower()
    for name in ("status.json", "provenance.json", "plan.json"):
        # A Keras run stores no features, and counts neither truncated texts nor groups.
        only_lightning = {
            "features",
            "formats",
            "backbone",
            "blocks",
            "group_column",
            "groups",
            "largest_class",
            "max_steps",
            "overfit_batches",
            "accumulate_grad_batches",
            "truncated",
            "max_length",
        }
        assert set(read(ours.folder, name)) >= set(read(theirs.folder, name)) - only_lightning, name
    keras_origin, torch_origin = (read(run.folder, "provenance.json") for run in (ours, theirs))
    assert keras_origin["hardware"].keys() == torch_origin["hardware"].keys()
    assert "tensorflow" in keras_origin["versions"]
    assert {"torch", "lightning"} <= torch_origin["versions"].keys() - keras_origin[
        "versions"
    ].keys()
    here, there = (read(run.folder, "metrics.json") for run in (ours, theirs))
    for part in ("test", "val", "best", "parameters", "seconds"):
        more = {"features", "steps", "total"} if part == "seconds" else set()
        assert set(here[part]) == set(there[part]) - more, part
    assert set(history(ours.folder)) >= {
        "epoch",
        "step",
        "train/loss",
        "train/acc",
        "train/n",
        "val/f1_macro",
        "val/n",
        "lr/head",
    }
    assert history(ours.folder)["lr/features"].isna().all()  # frozen
    page = write_report(ours.folder).read_text()
    assert "Misclassified test samples" in page
    assert "features.encoder_0" in page


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_resumed_run_equals_one_that_was_not_stopped(
    kind: str,
    command: Command,
    corpus: list[str],
    tables: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [
        kind,
        *(corpus if kind == "pretrain" else tables),
        "--epochs",
        "3",
        "--drop-rate",
        "0.3",
    ]
    whole = command(*arguments, folder=tmp_path / "whole")
    assert whole.code == 0, whole.err
    with monkeypatch.context() as patch:
        stop_after(0, patch)
        stopped = command(*arguments, folder=tmp_path / "stopped")
    assert stopped.code == 143
    assert read(stopped.folder, "status.json")["state"] == "interrupted"
    assert f" -m keras_bert {kind} --resume {stopped.folder}\n" in stopped.err
    assert len(history(stopped.folder)) == 1
    resumed = command(kind, "--resume", str(stopped.folder))
    assert resumed.code == 0, resumed.err
    same_curve(whole.folder, stopped.folder)
    ours, theirs = (read(folder, "metrics.json") for folder in (whole.folder, stopped.folder))
    assert ours["val"] == theirs["val"]
    assert ours["test"] == theirs["test"]
    assert (
        "is finished: there is nothing to resume"
        in command(kind, "--resume", str(stopped.folder)).error
    )


def test_validation_rows_have_the_same_share_of_every_class(
    command: Command, tables: list[str], tmp_path: Path
) -> None:
    file = write_csv(
        tmp_path / "train.csv",
        [(str(i), f"masks {i}", "real" if i % 5 else "fake") for i in range(60)],
    )
    without_val = [argument for i, argument in enumerate(tables) if i not in (2, 3)]
    done = command("finetune", *without_val, "--train", str(file), "--epochs", "1")
    assert done.code == 0, done.err
    assert yaml.safe_load((done.folder / "config.yaml").read_text())["val_split"] == "stratified"
    _, val_rows = stratified_split([int(i % 5 > 0) for i in range(60)], 0.1, 1)
    texts_and_labels = [
        value for i in val_rows for value in (f"masks {i}", "real" if i % 5 else "fake")
    ]
    assert sum(i % 5 == 0 for i in val_rows) == 1
    expected = {"rows": 6, "sha256": finetuning.fingerprint(texts_and_labels)}
    assert read(done.folder, "provenance.json")["data"]["val"] == expected


def test_a_resumed_run_of_0_1_keeps_its_validation_rows(
    command: Command, tables: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 0.1 drew them from all classes together, and its config has no `val_split`."""
    arguments = [
        "finetune",
        *(argument for i, argument in enumerate(tables) if i not in (2, 3)),
        "--epochs",
        "2",
    ]
    with monkeypatch.context() as patch:
        stop_after(0, patch)
        patch.setattr(
            finetuning, "_parts", lambda train, settings, folder: random_split(48, 4 / 48, 1)
        )
        assert command(*arguments).code == 143
    file = tmp_path / "run" / "config.yaml"
    before = file.read_text()
    file.write_text(before.replace("val_split: stratified\n", ""))
    began_with = read(tmp_path / "run", "provenance.json")["data"]
    drawn = np.random.default_rng(1).permutation(48)  # as 0.1 did
    rows = made_rows(48, 1)
    assert began_with["val"]["sha256"] == finetuning.fingerprint(
        w for i in sorted(drawn[:4]) for w in rows[i][1:]
    )
    resumed = command("finetune", "--resume", str(tmp_path / "run"))
    assert resumed.code == 0, resumed.err
    assert len(history(tmp_path / "run")) == 2


def test_a_frozen_bert_does_not_change(command: Command, tables: list[str], tmp_path: Path) -> None:
    first = command("finetune", *tables, "--epochs", "1", folder=tmp_path / "first")
    again = command(
        "finetune",
        *tables,
        "--epochs",
        "1",
        "--model",
        str(first.folder),
        "--freeze",
        folder=tmp_path / "again",
    )
    assert again.code == 0, again.err
    before, after = (
        load_network(run.folder / "checkpoints" / "best.keras") for run in (first, again)
    )
    for ours, theirs in zip(before.bert.weights, after.bert.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(before.logits.kernel, after.logits.kernel)
    assert read(again.folder, "metrics.json")["parameters"]["trainable"] == 2 * 16 + 2


def test_training_ends_early_also_when_resumed(
    command: Command, tables: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        "finetune",
        *tables,
        "--epochs",
        "9",
        "--patience",
        "1",
        "--lr",
        "1e-9",
        "--bert-lr",
        "1e-9",
    ]
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        assert command(*arguments).code == 143
    resumed = command("finetune", "--resume", str(tmp_path / "run"))
    assert resumed.code == 0, resumed.err
    assert len(history(tmp_path / "run")) == 2  # nothing moved, so the second epoch was no better
    assert read(tmp_path / "run", "metrics.json")["best"]["epoch"] == 0


def test_tensorboard_gets_the_rows(tmp_path: Path) -> None:
    from keras_bert.training.logs import open_loggers

    with open_loggers(FinetuneSettings(), KerasRunFolder(tmp_path)) as opened:
        for epoch, loss in enumerate((0.5, 0.25)):
            opened[0]({"epoch": epoch, "train/loss": loss, "lr/head": ""})
    [file] = (tmp_path / "tensorboard").iterdir()
    events = [
        event for event in tf.compat.v1.train.summary_iterator(str(file)) if event.summary.value
    ]
    found = [
        (
            event.step,
            event.summary.value[0].tag,
            float(tf.make_ndarray(event.summary.value[0].tensor)),
        )
        for event in events
    ]
    assert found == [(0, "train/loss", 0.5), (1, "train/loss", 0.25)]


def test_a_loss_that_is_not_finite_ends_the_run(
    command: Command, tables: list[str], tmp_path: Path
) -> None:
    done = command("finetune", *tables, "--lr", "1e30", "--bert-lr", "1e30", "--clip", "1e30")
    assert done.code == 1
    assert "loss became" in done.error
    assert "lower the learning rate" in done.error
    assert read(tmp_path / "run", "status.json")["state"] == "failed"


def test_a_network_that_cannot_be_saved_leaves_the_best_one_as_it_is(tmp_path: Path) -> None:
    class Network:
        def save(self, path: Path) -> None:
            path.write_text("half")
            raise OSError("full")

    folder = KerasRunFolder(tmp_path)
    folder.best_checkpoint.parent.mkdir()
    folder.best_checkpoint.write_text("best")
    with pytest.raises(OSError, match="full"):
        folder.write_best(Network())
    assert [path.name for path in folder.best_checkpoint.parent.iterdir()] == ["best.keras"]
    assert folder.best_checkpoint.read_text() == "best"


@pytest.mark.parametrize(
    ("count", "nsp", "val_count"), [(2, False, 1), (57, False, 2), (57, True, 2), (400, True, 20)]
)
def test_validation_documents_equal_those_of_0_1(
    count: int, nsp: bool, val_count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of version 0.1 therefore resume with the same documents."""
    documents = [[f"document {i}"] for i in range(count)]
    monkeypatch.setattr(pretraining, "read_documents", lambda *_: documents)
    train, val = pretraining._documents(PretrainSettings(text=("file",), nsp=nsp, seed=3))
    chosen = set(np.random.default_rng(3).permutation(count)[:val_count].tolist())
    assert val == [document for i, document in enumerate(documents) if i in chosen]
    assert train == [document for i, document in enumerate(documents) if i not in chosen]


def test_best_epoch_is_the_first_of_equals() -> None:
    rows = [
        {"epoch": str(i), "val/acc": value} for i, value in enumerate(("0.5", "0.9", "0.9", "0.1"))
    ]
    assert best_epoch(rows, "val/acc", "max") == 1
    assert best_epoch(rows, "val/acc", "min") == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--train", "none.csv"], "none.csv cannot be read: No such file or directory"),
        (
            ["--text-column", "words"],
            "train.csv: no column 'words'; it has id, tweet, label; name another with --text-column or --label-column",
        ),
        (["--val", "odd.csv"], "odd.csv, row 2 (line 3): label 'maybe' is none of fake, real"),
        (
            ["--model", "none"],
            "none is not a folder, and its download from the Hugging Face Hub failed",
        ),
        (["--hidden-size", "15"], "hidden_size 15 cannot be divided among 2 heads"),
        (["--vocab-size", "7"], "a vocabulary of 7 tokens is too small"),
        (["--maxlen", "2"], "maxlen 2 is too short for text between the special tokens"),
        (["--drop-rate", "1"], "--drop-rate 1.0: give 0 or more and less than 1"),
        (["--epochs", "0"], "--epochs 0: give 1 or more"),
        (["--lr", "0"], "--lr 0.0: give more than 0"),
        (["--random-weights"], "--random-weights True: name the --model"),
        (["--jit", "on"], "add --no-deterministic"),
        (["--resume", "none"], "none is no run folder of keras_bert"),
    ],
)
def test_invalid_arguments_are_rejected(
    command: Command, tables: list[str], tmp_path: Path, change: list[str], message: str
) -> None:
    write_csv(tmp_path / "odd.csv", [("1", "masks", "fake"), ("2", "hands", "maybe")])
    done: Ended = command("finetune", *tables, *change)
    assert done.code == 1
    assert message in done.error
    assert "Traceback" not in done.err
    assert len(done.error.splitlines()) == 1


def test_a_folder_is_used_by_one_run(command: Command, tables: list[str], tmp_path: Path) -> None:
    """Unless that run ended before its first checkpoint."""
    for wrong in (["--train", "none.csv"], ["--hidden-size", "15"]):
        assert command("finetune", *tables, *wrong).code == 1
        assert read(tmp_path / "run", "status.json")["state"] == "failed"
    assert command("finetune", *tables, "--epochs", "1").code == 0
    again = command("finetune", *tables, "--epochs", "1")
    assert again.code == 1
    assert f"{tmp_path / 'run'} holds a run already" in again.error
    assert "is a run of finetune" in command("pretrain", "--resume", str(tmp_path / "run")).error
    assert (
        "end the name in .csv or .parquet"
        in command("predict", str(tmp_path / "run"), "--out", "x.txt").error
    )
    (tmp_path / "run" / "checkpoints" / "best.keras").write_bytes(b"no")
    assert "best.keras cannot be loaded" in command("predict", str(tmp_path / "run")).error


def test_resuming_needs_the_same_data_and_an_intact_checkpoint(
    command: Command, tables: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(0, patch)
        assert command("finetune", *tables).code == 143
    write_csv(Path(tables[1]), made_rows(48, 9))
    assert (
        "the train data have changed since"
        in command("finetune", "--resume", str(tmp_path / "run")).error
    )
    write_csv(Path(tables[1]), made_rows(48, 1))
    last = tmp_path / "run" / "checkpoints" / "last.npz"
    last.write_bytes(last.read_bytes()[:2000])
    assert (
        "last.npz cannot be resumed from"
        in command("finetune", "--resume", str(tmp_path / "run")).error
    )


def test_xla_is_reported_only_if_keras_uses_it() -> None:
    assert not uses_xla(PretrainSettings())
    assert uses_xla(PretrainSettings(jit="on", deterministic=False))
    assert keras.backend.backend() == "tensorflow"
