"""A run on own data in one line: what its table decides is inferred, printed and recorded."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from engine.evaluation import evaluate, evaluate_on
from run_folders.run_folder import RunFolder
from tests.conftest import Train

NETWORK = (
    "data.tokenizer={vocab_size: 200}", "data.max_length=32", "trainer.max_epochs=1",
    "model.backbone={model_type: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16, vocab_size: 200, max_position_embeddings: 64}",
)  # fmt: skip
WORDS = ("a bad day", "an ordinary day", "a great day")


def test_a_table_is_trained_on_without_further_settings(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"nr": i, "comment": f"note {i} was {WORDS[i % 3]}", "grade": float(i % 3)}
        for i in range(60)
    ]
    table = tmp_path / "moods" / "notes.csv"
    table.parent.mkdir()
    pd.DataFrame(rows).to_csv(table, index=False, sep=";")
    overrides = ("data=text", f"data.folder={table.parent}", *NETWORK)
    ended = train(*overrides)
    assert ended.code == 0, ended.err
    shown = [line.split("│")[1:4] for line in ended.out.splitlines() if "│ data." in line]
    assert [[cell.strip() for cell in row] for row in shown] == [
        ["data.files.train", "notes.csv", "the only table in moods"],
        ["data.files.val", "null", "no val table in moods: drawn from train"],
        ["data.files.test", "null", "no test table in moods: drawn from train"],
        ["data.label_column", "grade", "the columns of notes.csv: the only column with few different values"],
        ["data.text_column", "comment", "the columns of notes.csv: the only column of texts"],
        ["data.classes", "0, 1, 2", "column 'grade' of notes.csv"],
        ["data.test_fraction", "0.1", "no test split: the usual part of train"],
    ]  # fmt: skip
    folder = RunFolder(ended.folder)
    recorded = yaml.safe_load(folder.config.read_text())["data"]
    assert recorded["files"] == {"train": "notes.csv", "val": None, "test": None}
    assert (recorded["classes"], recorded["num_classes"]) == (["0", "1", "2"], 3)
    facts = json.loads((ended.folder / "provenance.json").read_text())["data"]
    assert [facts[split]["rows"] for split in ("train", "val", "test")] == [49, 5, 6]
    predictions = pd.read_parquet(folder.predictions_of("test"))
    for index, text in zip(predictions["index"], predictions["text"], strict=True):
        assert text == rows[index]["comment"]
    assert evaluate(ended.folder, None) == 0
    evaluate_on(ended.folder, next(tmp_path.rglob("notes.csv")))
    assert "49 of 60 texts are in the train split of this run (and 5 in val)" in caplog.text


def test_labels_that_look_like_interpolations_are_texts(train: Train, tmp_path: Path) -> None:
    rows = [
        {"text": f"note {i} was {WORDS[i % 3]}", "label": ("${joy}", "fear")[i % 2]}
        for i in range(30)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "moods.csv", index=False)
    ended = train("data=text", f"data.folder={tmp_path / 'moods.csv'}", *NETWORK, "plan=true")
    assert ended.code == 0, ended.err
