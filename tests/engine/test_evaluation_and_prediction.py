"""Evaluation and prediction with a finished run, from its folder alone."""

import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf

import thaw
from datamodules.base import TransferDataModule
from datamodules.reading.errors import DataError
from datamodules.reading.formats import TableFormat
from engine.evaluation import evaluate, evaluate_on
from engine.predict import open_run, predict
from run_folders.run_folder import RunFolder, RunFolderError
from tests.conftest import ROOT, SAMPLE, Ended, Train, made_rows, write_csv
from tests.processes import run

Script = Callable[..., Ended]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Run a script's command line in this process."""

    def call(name: str, *arguments: object) -> Ended:
        path = ROOT / "scripts" / f"{name}.py"
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [str(path), *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(path), run_name="__main__")
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err, path)

    return call


@pytest.fixture(scope="module")
def moved_run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    """A finished run whose folder was moved and whose backbone was deleted."""
    base = tmp_path_factory.mktemp("moved")
    backbone = shutil.copytree(tiny_backbone, base / "backbone")
    for name, count, seed in (("train", 64, 1), ("val", 24, 2), ("test", 27, 3)):
        write_csv(base / "data" / "covid_fake_news" / f"{name}.csv", made_rows(count, seed))
    overrides = [
        "experiment=bert_bigru_finetune", f"model.backbone={backbone}", f"paths.data_dir={base / 'data'}", "model.head.hidden=8",
        "trainer.max_epochs=2", f"hydra.run.dir={base / 'before'}",
    ]  # fmt: skip
    code, _, errors = run(*overrides, cwd=base)
    assert code == 0, errors
    shutil.rmtree(backbone)
    return (base / "before").rename(base / "after")


def test_evaluate_reproduces_the_metrics_to_the_last_digit(
    moved_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The tokenizer's folder is deleted: evaluation reads the tokenizer from the checkpoint.
    assert evaluate(moved_run, None) == 0
    assert "all metrics equal metrics.json" in capsys.readouterr().out


def test_evaluate_script_reports_other_metrics_and_other_data(
    script: Script, train: Train, tmp_path: Path
) -> None:
    folder = RunFolder(train(*SAMPLE, "trainer.max_epochs=1").folder)
    done = script("evaluate", folder.path)
    assert done.code == 0, done.err
    metrics = folder.read_json("metrics.json")
    metrics["test"]["loss"] += 1e-15
    folder.write_json("metrics.json", metrics)
    done = script("evaluate", folder.path)
    assert done.code == 1
    assert "different: loss" in done.out
    provenance = folder.read_json("provenance.json")
    provenance["data"]["test"]["sha256"] = "0" * 64
    folder.write_json("provenance.json", provenance)
    done = script("evaluate", folder.path)
    assert done.code == 1
    assert "the test split is not the one" in done.err
    done = script("evaluate", tmp_path)
    assert done.code == 1
    assert done.err.strip().splitlines() == [done.err.strip()]
    assert "is no run folder: it has no config.yaml" in done.err


def test_a_folder_of_runs_names_them_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old")):
        RunFolder(tmp_path / name).write_status("finished", "report")
        os.utime(tmp_path / name / "status.json", (1000 - age, 1000 - age))
    message = "it has no config.yaml; it holds runs: new, old; give one of them"
    with pytest.raises(RunFolderError, match=message):
        evaluate(tmp_path, None)
    with pytest.raises(RunFolderError, match=message):
        open_run(tmp_path)
    with pytest.raises(RunFolderError, match=message.replace("config.yaml", "status.json")):
        thaw.Run(tmp_path)


def test_predictions_on_the_test_texts_equal_those_of_the_run(
    moved_run: Path, tmp_path: Path
) -> None:
    expected = pd.read_parquet(RunFolder(moved_run).predictions)
    source = tmp_path / "new.csv"
    expected[["text"]].assign(tweet=expected["text"], number=range(len(expected)))[
        ["number", "tweet"]
    ].to_csv(source, index=False)
    # In a new process, from another folder.
    command = [
        sys.executable,
        str(ROOT / "scripts" / "predict.py"),
        str(moved_run),
        str(source),
        "-o",
        str(tmp_path / "out.csv"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out.csv")
    assert "27 predicted, 0 left out" in done.stderr
    out = pd.read_csv(tmp_path / "out.csv")
    assert list(out) == ["number", "tweet", "prediction", "probability_fake", "probability_real"]
    assert out["number"].tolist() == list(range(27))
    assert out["prediction"].tolist() == expected["prediction"].tolist()
    assert out["probability_real"].to_numpy() == pytest.approx(
        expected["probability_real"].to_numpy(), abs=1e-5
    )


@pytest.mark.parametrize("suffix", ["txt", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("target", ["csv", "tsv", "jsonl", "parquet"])
def test_every_input_and_output_format(
    suffix: str, target: str, moved_run: Path, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"tweet": ["masks help", "bleach cure 😷", "cases, rise"], "n": [1, 2, 3]})
    source, out = tmp_path / f"in.{suffix}", tmp_path / f"out.{target}"
    match suffix:
        case "txt":
            source.write_text("\n".join(frame["tweet"]) + "\n")
        case "tsv":
            frame.to_csv(source, sep="\t", index=False)
        case "jsonl":
            frame.to_json(source, orient="records", lines=True, force_ascii=False)
        case _:
            frame.to_parquet(source, index=False)
    predict(moved_run, [source], out)
    match target:
        case "csv" | "tsv":
            read = pd.read_csv(out, sep="\t" if target == "tsv" else ",")
        case "jsonl":
            read = pd.read_json(out, lines=True)
        case _:
            read = pd.read_parquet(out)
    assert read["tweet"].tolist() == frame["tweet"].tolist()
    assert set(read["prediction"]) <= {"fake", "real"}
    if suffix != "txt":
        assert read["n"].astype(int).tolist() == [1, 2, 3]


def test_input_is_read_as_a_stream(
    moved_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are pulled a chunk at a time, and written before the next chunk is read."""
    import engine.prediction.texts

    monkeypatch.setattr(engine.prediction.texts, "_CHUNK", 10)
    partial, seen = tmp_path / "out.partial.csv", []
    real = engine.prediction.texts.read_rows

    def counted(path: Path, needed: list[str], **more: object) -> object:
        for i, row in enumerate(real(path, needed, **more)):
            if i % 10 == 0:
                seen.append(partial.exists())
            yield row

    monkeypatch.setattr(engine.prediction.texts, "read_rows", counted)
    source = tmp_path / "in.csv"
    source.write_text("tweet\n" + "".join(f"text {i}\n" for i in range(35)))
    predict(moved_run, [source], tmp_path / "out.csv")
    assert seen == [False, True, True, True]
    assert not partial.exists()
    assert pd.read_csv(tmp_path / "out.csv")["tweet"].tolist() == [f"text {i}" for i in range(35)]


def test_a_bad_row_stops_and_the_rows_predicted_so_far_are_kept(
    moved_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import engine.prediction.texts

    monkeypatch.setattr(engine.prediction.texts, "_CHUNK", 2)
    source = tmp_path / "in.csv"
    source.write_text('id,tweet\n1,a\n2,b\n3,c\n4,\n5,"e"\n')
    with pytest.raises(
        ValueError, match=r"in.csv, row 4 \(line 5\): column 'tweet' is empty; .*--on-bad-rows skip"
    ) as caught:
        predict(moved_run, [source], tmp_path / "out.parquet")
    assert caught.value.__notes__ == [
        f"the rows predicted so far are in {tmp_path / 'out.partial.parquet'}"
    ]
    assert pd.read_parquet(tmp_path / "out.partial.parquet")["id"].tolist() == ["1", "2"]
    assert not (tmp_path / "out.parquet").exists()
    predict(moved_run, [source], tmp_path / "out.parquet", on_bad_rows="skip")
    assert pd.read_parquet(tmp_path / "out.parquet")["id"].tolist() == ["1", "2", "3", "5"]


def test_each_fault_of_the_command_line_is_reported_in_one_line(
    script: Script, moved_run: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\nhello\n")
    exists = tmp_path / "exists.csv"
    exists.write_text("keep me")
    clash = tmp_path / "clash.csv"
    clash.write_text("tweet,prediction\na,b\n")
    cases = [
        ([moved_run, tmp_path / "none.csv"], "none.csv: no such file"),
        ([moved_run, source], "no column 'tweet'; it has text"),
        (
            [moved_run, source, "--column", "text", "-o", tmp_path / "o.csv", "--device", "abacus"],
            "--device abacus",
        ),
        ([moved_run, source, "-o", exists], "exists.csv exists; give another -o, or --force"),
        ([moved_run, source, "-o", tmp_path / "out.xlsx"], "cannot write '.xlsx' files"),
        ([moved_run, clash], "there is a column prediction already"),
        ([tmp_path, source], "is no run folder"),
    ]
    for arguments, message in cases:
        done = script("predict", *arguments)
        assert done.code == 1
        assert message in done.err
        assert "Traceback" not in done.err
    assert exists.read_text() == "keep me"
    done = script("predict", moved_run, source, "--column", "text", "-o", exists, "--force")
    assert done.code == 0, done.err
    assert pd.read_csv(exists)["text"].tolist() == ["hello"]


def test_a_foreign_run_folder_runs_no_code(moved_run: Path, tmp_path: Path) -> None:
    """Neither its config nor the backbone in its checkpoint can run code."""
    source = tmp_path / "in.csv"
    source.write_text("tweet\nhello\n")
    evil = {"_target_": "logging.FileHandler", "filename": str(tmp_path / "ran")}
    by_config = Path(shutil.copytree(moved_run, tmp_path / "config"))
    cfg = OmegaConf.load(by_config / "config.yaml")
    cfg.model.head.dropout = evil
    OmegaConf.save(cfg, by_config / "config.yaml")
    by_checkpoint = Path(shutil.copytree(moved_run, tmp_path / "checkpoint"))
    checkpoint = torch.load(by_checkpoint / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["thaw"]["backbone"] = json.dumps({"model_type": "bert", "hidden_act": evil})
    torch.save(checkpoint, by_checkpoint / "checkpoints" / "best.ckpt")
    for folder, message in (
        (by_config, r"received 'logging\.FileHandler'; no object is expected here"),
        (by_checkpoint, "names a class"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(folder, [source], tmp_path / "out.csv")
    assert not (tmp_path / "ran").exists()


def test_columns_are_kept_or_rejected_and_never_lost(moved_run: Path, tmp_path: Path) -> None:
    ragged = tmp_path / "ragged.jsonl"
    ragged.write_text('{"tweet": "a"}\n{"tweet": "b", "n": 2}\n')
    predict(moved_run, [ragged], tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["n"].fillna(-1).tolist() == [-1, 2]
    predict(moved_run, [ragged], tmp_path / "out.jsonl")
    assert [
        row.get("n") for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    ] == [None, 2]
    twice = tmp_path / "twice.csv"
    twice.write_text("a,a,tweet\n1,2,x\n")
    with pytest.raises(ValueError, match="names 'a' 2 times"):
        predict(moved_run, [twice], tmp_path / "no.csv")
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text('{"tweet": "a", "n": 1}\n{"tweet": "b", "n": "two"}\n')
    with pytest.raises(ValueError, match="a column has more than one type"):
        predict(moved_run, [mixed], tmp_path / "no.parquet")
    frame = pd.DataFrame(
        {"tweet": ["a", "b"], "when": pd.to_datetime(["2020-01-01", None]), "empty": [None, None]}
    )
    frame.to_parquet(tmp_path / "typed.parquet", index=False)
    predict(moved_run, [tmp_path / "typed.parquet"], tmp_path / "typed_out.parquet")
    assert (
        pq.read_schema(tmp_path / "typed_out.parquet").field("when").type
        == pq.read_schema(tmp_path / "typed.parquet").field("when").type
    )


def test_late_columns_and_types_are_rejected(
    moved_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import engine.prediction.texts

    monkeypatch.setattr(engine.prediction.texts, "_CHUNK", 1)
    source = tmp_path / "in.jsonl"
    source.write_text('{"tweet": "a"}\n{"tweet": "b", "n": 2}\n')
    with pytest.raises(ValueError, match="column 'n' is not in the first rows"):
        predict(moved_run, [source], tmp_path / "out.csv")
    source.write_text('{"tweet": "a", "n": 1}\n{"tweet": "b", "n": 2.5}\n')
    with pytest.raises(ValueError, match="a column has more than one type"):
        predict(moved_run, [source], tmp_path / "out.parquet")


def test_nothing_to_predict_is_an_error(moved_run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    for content, left_out in (("tweet\n", 0), ("tweet,n\n,1\n", 1)):
        source.write_text(content)
        with pytest.raises(ValueError, match=rf"nothing to predict \({left_out} left out\)"):
            predict(moved_run, [source], tmp_path / "out.csv", on_bad_rows="skip")
        assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(("head", "end"), [("id,tweet", ""), ("tweet", ""), ("id,tweet,n", ",5")])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_rows_within_paired_stray_quotes_are_not_lost(
    moved_run: Path, tmp_path: Path, head: str, end: str, suffix: str
) -> None:
    source, out = tmp_path / f"in.{suffix}", tmp_path / "out.csv"
    texts = [f"text number {i}" for i in range(30)]
    texts[8], texts[18] = '"' + texts[8], texts[18] + '"'
    lines = [f"{i},{text}{end}" if "id" in head else text for i, text in enumerate(texts)]
    content = "\n".join([head, *lines, ""])
    source.write_text(content.replace(",", "\t") if suffix == "tsv" else content)
    with pytest.raises(ValueError, match=r"row 9 \(line 10\): .*quote.*--quoting"):
        predict(moved_run, [source], out)
    predict(moved_run, [source], out, on_bad_rows="skip", force=True)
    assert pd.read_csv(out)["tweet"].tolist() == texts[:8] + texts[9:]
    predict(moved_run, [source], out, force=True, table_format=TableFormat(quoting="none"))
    assert pd.read_csv(out)["tweet"].tolist() == texts


def test_report_script_compares_runs(
    script: Script, moved_run: Path, train: Train, tmp_path: Path
) -> None:
    other = train(*SAMPLE, "trainer.max_epochs=1").folder
    done = script("report", moved_run, other, "-o", tmp_path / "page.html")
    assert done.code == 0, done.err
    assert "not the same test samples" in (tmp_path / "page.html").read_text()
    assert script("report", tmp_path).code == 1
    assert "is no run folder" in script("report", tmp_path).err
    assert json.loads((moved_run / "status.json").read_text())["state"] == "finished"


def test_evaluation_on_other_texts(
    script: Script, moved_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tested = pd.read_parquet(RunFolder(moved_run).predictions)
    other = tested[["text", "label"]].rename(columns={"text": "tweet"})
    paths = [tmp_path / "a" / "same.csv", tmp_path / "b" / "same.csv"]
    for path, rows in zip(paths, (other, other.head(9)), strict=True):
        path.parent.mkdir()
        rows.to_csv(path, index=False)  # without the dataset's ids
    results = []
    for path in paths:
        done = script("evaluate", moved_run, "--data", path)
        assert done.code == 0, done.err
        results.append(json.loads(Path(done.out.strip().splitlines()[-1]).read_text()))
    recorded = RunFolder(moved_run).read_json("metrics.json")["test"]
    assert [result["n"] for result in results] == [27, 9]
    assert results[0]["acc"] == recorded["acc"]
    assert results[0]["loss"] == pytest.approx(recorded["loss"], abs=1e-6)
    assert len(list((moved_run / "evaluations").glob("same-*.json"))) == 2

    other.assign(label=["maybe", *other["label"][1:]]).to_csv(paths[1], index=False)
    done = script("evaluate", moved_run, "--data", paths[1])
    assert done.code == 1
    assert "row 1 (line 2): label 'maybe' is none of fake, real" in done.err
    assert "--on-bad-rows skip" in done.err
    done = script("evaluate", moved_run, "--data", paths[1], "--on-bad-rows", "skip")
    assert done.code == 0, done.err
    (skipped,) = (moved_run / "evaluations").glob("*.skipped_rows.csv")
    assert pd.read_csv(skipped)["row"].tolist() == [1]
    reason = "same.csv, row 1 (line 2): label 'maybe' is none of fake, real"
    assert f"1 bad row was left out: {reason}" in caplog.messages
    assert f"{skipped} lists the rows that were left out" in caplog.messages


def test_texts_that_the_run_was_trained_on_are_reported(
    moved_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = moved_run.parent / "data" / "covid_fake_news"
    train, val = (pd.read_csv(data / f"{name}.csv") for name in ("train", "val"))
    pd.concat([train.head(5), val.head(2)]).to_csv(tmp_path / "mixed.csv", index=False)
    evaluate_on(moved_run, tmp_path / "mixed.csv")
    assert (
        "5 of 7 texts are in the train split of this run (and 2 in val), "
        "so these metrics are too good"
    ) in caplog.messages
    caplog.clear()
    evaluate_on(moved_run, data / "test.csv")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    (data / "train.csv").rename(tmp_path / "before.csv")
    try:
        train.head(20).to_csv(data / "train.csv", index=False)
        evaluate_on(moved_run, data / "train.csv")
    finally:
        (tmp_path / "before.csv").rename(data / "train.csv")
    assert f"{data / 'train.csv'} is of the data of this run: its metrics may be too good" in (
        caplog.messages
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nword,fake\n", "no column 'tweet'; it has text, label; the run reads the columns tweet, label"),
        ("", "is empty"),
        ("tweet,label\n", "has a header and no rows"),
        (None, "no such file or folder"),
    ],
)  # fmt: skip
def test_other_texts_that_cannot_be_used(
    content: str | None, message: str, script: Script, moved_run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.csv"
    if content is not None:
        path.write_text(content)
    done = script("evaluate", moved_run, "--data", path)
    assert (done.code, len(done.err.strip().splitlines())) == (1, 1), done.err
    assert message in done.err


def test_a_datamodule_that_reads_no_other_data_says_so(train: Train, tmp_path: Path) -> None:
    class Fixed(TransferDataModule[Any]):
        read_splits = divide = reference = None  # type: ignore[assignment]

    Fixed.__abstractmethods__ = frozenset()
    data = Fixed(0.1, "error", 1)  # type: ignore[abstract]
    data.splits_to_read, data.test_data = ("test",), tmp_path
    with pytest.raises(DataError, match="Fixed reads no other data than its own"):
        data.setup()


def test_evaluate_finds_data_in_a_renamed_folder(
    script: Script, train: Train, tmp_path: Path
) -> None:
    data = tmp_path / "data" / "moods"
    for name, seed in (("train", 1), ("val", 2), ("test", 3)):
        write_csv(data / f"{name}.csv", made_rows(24, seed))
    run_folder = train(
        *SAMPLE[1:], "data=text", "model=sample_text_classifier", "data.folder=moods", "data.classes=[fake,real]",
        "data.num_classes=2", "data.text_column=tweet", "data.tokenizer={vocab_size: 100}",
        f"paths.data_dir={data.parent}",
    )  # fmt: skip
    assert run_folder.code == 0, run_folder.err
    renamed = data.rename(tmp_path / "data" / "mööds b")
    gone = script("evaluate", run_folder.folder)
    assert gone.code == 1
    assert gone.err.strip() == (
        f"error: {data}: the folder of the run's data is gone; pass its new place with --data-dir"
    )
    assert script("evaluate", run_folder.folder, "--data-dir", renamed).code == 0
    moved = tmp_path / "elsewhere" / "moods"
    moved.parent.mkdir()
    renamed.rename(moved)
    assert script("evaluate", run_folder.folder, "--data-dir", moved.parent).code == 0
    none = script("evaluate", run_folder.folder, "--data-dir", tmp_path / "none")
    assert "none: no such folder; pass the folder of the run's data" in none.err


def test_names_with_accents_in_another_normal_form_are_predicted(
    moved_run: Path, tmp_path: Path
) -> None:
    of_file, given = "cafe\u0301", "caf\xe9"
    pd.DataFrame({"n": [1, 2], of_file: ["a", "b"]}).to_parquet(tmp_path / "new.parquet")
    for name in ("out.parquet", "out.jsonl"):
        out = predict(moved_run, [tmp_path / "new.parquet"], tmp_path / name, column=given)
        frame = pd.read_parquet(out) if name.endswith("t") else pd.read_json(out, lines=True)
        assert frame[given].tolist() == ["a", "b"]


def test_a_table_that_is_called_txt_is_named(
    moved_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "new.txt").write_text("id,tweet,label\n1,a,x\n")
    predict(moved_run, [tmp_path / "new.txt"])
    assert (
        "new.txt: the first line looks like the header of a table, and each line is read as a text; "
        "to read its column 'tweet', rename the file to .csv or .tsv"
    ) in caplog.text


def test_inputs_that_are_longer_than_the_run_reads_are_counted(
    moved_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "short.txt").write_text("a b c\n" * 3)
    predict(moved_run, [tmp_path / "short.txt"])
    assert "longer than" not in caplog.text
    (tmp_path / "new.txt").write_text("a b c\n" + "a " * 300 + "\n" + "b " * 500 + "\n")
    predict(moved_run, [tmp_path / "new.txt"])
    expected = "new.txt: 2 of 3 texts are longer than 128 tokens (66.7 %) and cut off there"
    assert expected in caplog.text
