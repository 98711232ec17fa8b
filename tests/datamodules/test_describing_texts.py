"""The facts about tables of texts before training."""

import json
from pathlib import Path
from typing import Any

import pytest

from datamodules.describing.base import Request
from datamodules.describing.columns import ColumnCounter
from datamodules.describing.kinds import KINDS, kind_of
from datamodules.describing.sections import Lengths, share
from datamodules.describing.texts import MultilabelTextDescription, TextDescription
from datamodules.reading.errors import DataError
from datamodules.text import TextDataModule
from datamodules.texts.tokenizing import TextTokenizer, vocabulary_tokenizer
from tests.conftest import made_rows, write_csv

ODD = ("Nr", "Author", "Message text", "Mood", "Points", "Empty")


def odd_table(path: Path, *, encoding: str = "cp1252") -> Path:
    """60 rows with a text that occurs twice, a row without text and one without label."""
    rows = [
        [str(i), f"user{i % 7}", f"wash your hands today, größer als {i}", "good", f"{i}.5", ""]
        for i in range(60)
    ]
    for i in range(0, 60, 3):
        rows[i][3] = "bad"
    rows[7][2] = rows[21][2] = "the same message"
    rows[50][2] = ""
    rows[40][3] = ""
    path.write_text("\n".join(";".join(row) for row in [ODD, *rows]) + "\n", encoding=encoding)
    return path


def described(path: Path, tokenizer: TextTokenizer | None = None, **given: Any) -> Any:
    request = Request(path, given, path.parent / "data", tokenizer, max_length=6, limit=100)
    return KINDS[kind_of(path)](request)


def shown(description: Any, title: str) -> Any:
    return next(part for part in description.sections() if part.title.startswith(title))


def test_a_table_with_odd_columns(tmp_path: Path) -> None:
    found = described(odd_table(tmp_path / "odd.csv"), label_column="Mood")
    assert type(found) is TextDescription
    assert found.settings["text_column"] == "Message text"
    (train,) = found.facts
    assert train.split.read_as == "CP1252, delimiter ';', quoting csv"
    assert (train.split.samples, train.split.bad_count) == (58, 2)
    assert [str(row) for row in train.split.bad] == [
        "odd.csv, row 41 (line 42): label '' is none of bad, good",
        "odd.csv, row 51 (line 52): column 'Message text' is empty",
    ]
    assert dict(train.split.classes) == {0: 20, 1: 38}
    columns = {column.name: column for column in train.columns}
    assert [column.role() for column in train.columns] == [
        "id?",
        "group?",
        "",
        "label?",
        "",
        "empty",
    ]
    assert (columns["Mood"].empty, columns["Mood"].distinct) == (1, 2)
    assert columns["Points"].content == "numbers"
    assert columns["Nr"].content == "whole numbers"
    assert shown(found, "Columns of train").rows[3][1] == "label"
    assert shown(found, "Copies").notes == [
        "more than once in train: 1 text, such as odd.csv, row 8 = odd.csv, row 22",
        "with two labels: 1 text, such as odd.csv, row 8 and odd.csv, row 22",
    ]
    assert shown(found, "Files").notes == [
        "val is drawn from train with the seed (data.val_fraction)",
        "test is drawn from train: 10 %, the same for every seed",
    ]


def test_a_question_comes_with_the_columns(tmp_path: Path) -> None:
    found = described(odd_table(tmp_path / "odd.csv", encoding="utf-8"))
    assert "which column has the labels? set data.label_column" in found.question
    (columns,) = found.sections()
    assert columns.title == "Columns of odd.csv (60 rows)"
    assert [row[0] for row in columns.rows] == list(ODD)
    assert columns.notes == ["group?: data.group_column=NAME keeps equal values of it in one split"]


def test_splits_copies_between_them_and_missing_classes(tmp_path: Path) -> None:
    rows = made_rows(60, 1, ("fake", "real", "satire"))
    write_csv(tmp_path / "train.csv", rows)
    write_csv(tmp_path / "test.csv", [*made_rows(8, 2), rows[3], rows[4]])
    found = described(tmp_path)
    train, test = found.facts
    assert (train.split.samples, test.split.samples) == (60, 10)
    assert shown(found, "Classes").rows == [
        ["fake", 20, 5, "33.3 %"],
        ["real", 20, 5, "33.3 %"],
        ["satire", 20, 0, "33.3 %"],
    ]
    assert shown(found, "Classes").notes == ["no sample in test: satire"]
    assert shown(found, "Copies").notes == [
        "in train and in test: 2 texts, such as train.csv, row 4 = test.csv, row 9"
    ]


def test_tokens_and_what_the_vocabulary_does_not_know(tmp_path: Path) -> None:
    tokenizer = vocabulary_tokenizer(["wash your hands"], 100)
    texts = ["wash your hands"] * 10 + ["wash your hands wash your", "wash Ж hands Ж Ω"]
    rows = [(str(i), text, "ab"[i % 2]) for i, text in enumerate(texts)]
    write_csv(tmp_path / "t.csv", rows, ("id", "text", "label"))
    found = described(tmp_path / "t.csv", tokenizer)
    lengths = shown(found, "Lengths")
    assert lengths.rows[1] == ["train", "tokens", 5, 5, 7, 7, "2 (16.7 %)"]
    assert lengths.notes == [
        "train: tokens that the vocabulary does not know: 3 of 64 (4.7 %); most often 'Ж' 2, 'Ω' 1"
    ]


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (
            [{"text": f"wash hands now {i}", "tags": "joy;fear" if i % 2 else "fear"} for i in range(20)],
            {"label_column": "tags", "label_separator": ";"},
        ),
        (
            [{"text": f"wash hands now {i}", "tags": ["joy", "fear"][: i % 3]} for i in range(20)],
            {"label_column": "tags", "label_separator": ";"},
        ),
        (
            [{"text": f"wash hands now {i}", "joy": i % 2, "fear": int(i % 3 > 0)} for i in range(20)],
            {"label_column": ["joy", "fear"], "classes": ["joy", "fear"]},
        ),
    ],
)  # fmt: skip
def test_several_labels_are_recognised(
    rows: list[dict[str, Any]], settings: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = described(path)
    assert type(found) is MultilabelTextDescription
    assert found.guessed == settings
    assert not found.question
    assert {*found.settings["classes"]} == {"joy", "fear"}
    assert found.facts[0].split.samples == 20


def test_a_text_with_commas_and_a_switch_beside_the_label_are_no_several_labels(
    tmp_path: Path,
) -> None:
    rows = [(f"wash, hands, {i}", "ab"[i % 2], str(i % 2)) for i in range(20)]
    write_csv(tmp_path / "t.csv", rows, ("text", "label", "verified"))
    assert kind_of(tmp_path / "t.csv") == "text"


def test_other_files_are_a_question(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(DataError, match=r"files with the suffixes .docx \(1\); which kind is it\?"):
        kind_of(tmp_path)


def test_inference_is_that_of_training(tmp_path: Path) -> None:
    """The description names the arguments that inference reads without importing the datamodule."""
    write_csv(tmp_path / "t.csv", made_rows(20, 1))
    place = {"folder": str(tmp_path / "t.csv"), "data_dir": "data"}
    assert described(tmp_path / "t.csv").findings == TextDataModule.infer(place)


def test_different_values_are_counted() -> None:
    counter = ColumnCounter("stars")
    for value in (-1, -2, 0, -1, None, [1], [1], "a"):
        counter.add(value)
    assert counter.facts(8)[3:5] == (1, 5)


@pytest.mark.parametrize(
    ("values", "role"),
    [
        ([f"K{i % 225}" for i in range(900)], "group?"),
        ([f"K{i}" for i in range(900)], ""),
        ([f"K{i % 890}" for i in range(900)], ""),
        ([f"{i % 225}.5" for i in range(900)], ""),
        ([f"a text of more than forty characters, number {i % 225}" for i in range(900)], ""),
        ([f"K{i % 5}" for i in range(900)], "label?"),
    ],
)
def test_repeated_short_values_may_be_groups(values: list[str], role: str) -> None:
    counter = ColumnCounter("Kunde")
    for value in values:
        counter.add(value)
    assert counter.facts(len(values)).role() == role


def test_lengths_and_shares() -> None:
    assert Lengths.of(range(1, 101)) == (1, 51, 95, 100)
    assert [share(0, 0), share(0, 5), share(1, 10_000), share(1, 3)] == ["-", "0.0 %", "< 0.1 %", "33.3 %"]  # fmt: skip
