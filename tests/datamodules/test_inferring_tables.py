"""Files, columns and classes that are inferred from the tables of a folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datamodules.inferring.columns import Content
from datamodules.inferring.labelled import infer_tables
from datamodules.reading.errors import DataError
from datamodules.reading.rows import Row
from datamodules.reading.sources import AUTO_FILES, HUB_SPLITS, HubTable

OPEN: dict[str, Any] = {
    "data_dir": "data", "hub": None, "files": AUTO_FILES, "classes": None, "num_classes": None,
    "text_column": None, "image_column": None, "label_column": None, "label_separator": None, "label_map": None,
    "id_column": None, "group_column": None, "test_fraction": None, "delimiter": None, "quoting": None,
    "encoding": None,
}  # fmt: skip
LABELS = ("joy", "anger", "fear")
DRAWN = {"files.val": None, "files.test": None, "test_fraction": 0.1}


def text(number: int) -> str:
    return f"a note with the number {number}, and some words"


def rows(labels: Sequence[Any] = LABELS, count: int = 12) -> list[dict[str, Any]]:
    return [{"text": text(i), "label": labels[i % len(labels)]} for i in range(count)]


def write(path: Path, found: Sequence[Any], **settings: Any) -> Path:
    """Write a table in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(found)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    else:
        usual = "\t" if path.suffix == ".tsv" else ","
        table.to_csv(path, index=False, **{"sep": usual, **settings})
    return path


def inferred(folder: Path, content: Content = "text_column", **settings: Any) -> dict[str, Any]:
    given = {**OPEN, "folder": str(folder), **settings}
    return {f.key: f.value for f in infer_tables(given, content, has_classes=True)}


@pytest.mark.parametrize(
    ("names", "train", "val", "test"),
    [
        (["train.csv", "val.csv", "test.csv"], "train.csv", "val.csv", "test.csv"),
        (["training.tsv", "validation.tsv", "testing.tsv"], "training.tsv", "validation.tsv", "testing.tsv"),
        (["Moods_Train.jsonl", "Moods_Dev.jsonl"], "Moods_Train.jsonl", "Moods_Dev.jsonl", None),
        (["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"], "train-00000-of-00001.parquet", None, "test-00000-of-00001.parquet"),
        (["data/train.csv", "data/valid.csv"], "data/train.csv", "data/valid.csv", None),
        (["train/part.csv", "test/part.csv"], "train/part.csv", None, "test/part.csv"),
        (["moods.csv"], "moods.csv", None, None),
        (["moods.csv", "test.csv"], "moods.csv", None, "test.csv"),
        (["train.csv", "all.csv", ".train.csv", "~train.csv"], "train.csv", None, None),
        (["train.csv", "train_test.csv"], "train.csv", None, None),
    ],
)  # fmt: skip
def test_the_names_of_files_decide_the_splits(
    names: list[str], train: str, val: str | None, test: str | None, tmp_path: Path
) -> None:
    for name in names:
        write(tmp_path / name, rows())
    (tmp_path / "README.md").write_text("notes")
    found = inferred(tmp_path)
    assert [found[f"files.{split}"] for split in ("train", "val", "test")] == [train, val, test]
    assert found.get("test_fraction") == (None if test else 0.1)
    assert (found["text_column"], found["label_column"]) == ("text", "label")
    assert (found["classes"], found["num_classes"]) == (["anger", "fear", "joy"], 3)


def test_a_table_is_named_as_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "moods.csv", rows())
    write(tmp_path / "test.csv", rows())
    monkeypatch.chdir(tmp_path)
    here = {"folder": str(tmp_path), "files.train": "moods.csv", **DRAWN}
    assert inferred(Path("moods.csv")).items() >= here.items()
    in_data = inferred(Path("moods.csv"), data_dir=str(tmp_path))
    assert in_data.items() >= {**here, "folder": "."}.items()
    with pytest.raises(DataError, match=r"is a file, and data.files.train names a.csv"):
        inferred(Path("moods.csv"), files={**AUTO_FILES, "train": "a.csv"})


def test_a_path_may_begin_with_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "moods.csv", rows())
    monkeypatch.setenv("HOME", str(tmp_path))
    found = inferred(Path("~/moods.csv"))
    assert (found["folder"], found["files.train"]) == (str(tmp_path), "moods.csv")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["one.csv", "two.csv"], "which table is train? set data.files.train to one of one.csv, two.csv"),
        (["train.csv", "training.csv"], "which table is train? set data.files.train to one of train.csv, training.csv"),
        (["train.csv", "dev.csv", "val.csv"], "which table is val? set data.files.val to one of dev.csv, val.csv"),
        (["moods.xlsx"], "no table (.csv, .tsv, .jsonl, .parquet) in FOLDER; it has moods.xlsx; save it as CSV in the program that wrote it"),
        ([], "it is empty; put one there, or name a dataset on the hub in data.hub"),
        (["2026/moods/train.csv"], "it has 2026; put one there, or"),
    ],
)  # fmt: skip
def test_a_question_about_files(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError) as raised:
        inferred(tmp_path)
    assert message.replace("FOLDER", str(tmp_path)) in str(raised.value)


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"no folder or table 'moods' in {tmp_path} nor in "):
        inferred(Path("moods"), data_dir=str(tmp_path))


def test_a_test_file_and_a_drawn_test_are_a_contradiction(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        write(tmp_path / name, rows())
    message = r"data.test_fraction=0.2, and the data has the test split test.csv; set data.files"
    with pytest.raises(DataError, match=message):
        inferred(tmp_path, test_fraction=0.2)
    found = inferred(tmp_path, test_fraction=0.2, files={**AUTO_FILES, "test": None})
    assert not {"files.test", "test_fraction"} & set(found)


def test_a_test_file_without_labels_is_no_test_split(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows())
    write(tmp_path / "test.csv", [{"text": text(i)} for i in range(3)])
    assert inferred(tmp_path).items() >= DRAWN.items()


COLUMNS: list[tuple[dict[str, list[Any]], str, str]] = [
    ({"id": [*range(9)], "comment": [text(i) for i in range(9)], "grade": [1.0, 2.0, 3.0] * 3}, "comment", "grade"),
    ({"user": [f"u{i}" for i in range(9)], "tweet": [text(i) for i in range(9)], "y": [0, 1, 0] * 3}, "tweet", "y"),
    ({"language": ["en"] * 9, "body": [text(i) for i in range(9)], "Sentiment": ["good", "bad", "bad"] * 3}, "body", "Sentiment"),
    ({"Text": ["good", "bad", "ugly"] * 3, "title": [text(i) for i in range(9)], "Label": ["a", "b", "c"] * 3}, "Text", "Label"),
    ({"word": [f"w{'x' * i}" for i in range(9)], "label": ["a", "b", "c"] * 3}, "word", "label"),
    ({"评论": ["今天天气很好我们去公园" + "好" * i for i in range(9)], "类别": ["好", "坏", "好"] * 3}, "评论", "类别"),
    ({"url": [f"https://example.org/{i}" for i in range(9)], "news": [text(i) for i in range(9)], "is_fake": [True, False, True] * 3}, "news", "is_fake"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "text_column", "label_column"), COLUMNS)
@pytest.mark.parametrize(
    ("name", "settings"),
    [("a.csv", {}), ("a.csv", {"sep": ";"}), ("a.tsv", {}), ("a.jsonl", {}), ("a.parquet", {})],
)
def test_columns_are_found(
    columns: dict[str, list[Any]], text_column: str, label_column: str,
    name: str, settings: dict[str, Any], tmp_path: Path,
) -> None:  # fmt: skip
    write(tmp_path / name, pd.DataFrame(columns).to_dict("records"), **settings)
    found = inferred(tmp_path)
    assert (found["text_column"], found["label_column"]) == (text_column, label_column)


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"title": text, "body": text, "label": str}, {}, "which column has the texts? set data.text_column to title (such as 'a note with the number 0, and some words') or body"),
        ({"text": text, "country": lambda i: "AB"[i % 2], "kind": lambda i: "xyz"[i % 3]}, {}, "which column has the labels? set data.label_column to country (such as 'A') or kind"),
        ({"text": text, "number": float}, {}, "no column looks like the labels; set data.label_column to its name: text, number"),
        ({"number": float, "label": lambda i: "AB"[i % 2]}, {}, "no column looks like the texts; set data.text_column to its name: number"),
        ({"text": text, "label": lambda i: "AB"[i % 2]}, {"label_column": "mood"}, "no column 'mood'; it has text, label"),
        ({"text": text, "label": lambda i: "AB"[i % 2]}, {"group_column": "user"}, "no column 'user'; it has text, label"),
        ({"text": text, "label": lambda i: i // 2}, {}, "column 'label' of a.csv has 150 different labels (0, 1, 2, 3, 4 and 145 more): are they classes? if so, set data.num_classes=150"),
        ({"text": text, "label": lambda i: i if i < 90 else ""}, {}, "has a different label for each of 90 samples"),
        ({"text": text, "label": lambda i: i / 8}, {}, "different numbers with a fraction"),
        ({"text": text, "label": lambda _: ""}, {}, "column 'label' of a.csv has no label"),
        ({text(0): text, "A": lambda i: "AB"[i % 2]}, {}, "a.csv has no header: its first line is a row"),
        ({"fine": text, "1": lambda i: i % 2}, {}, "a.csv has no header"),
        ({"was it fine? How did you like it on the whole?": text}, {}, "no column looks like the labels"),
    ],
)  # fmt: skip
def test_a_question_about_columns_and_classes(
    columns: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(
        tmp_path / "a.csv",
        [{name: value(i) for name, value in columns.items()} for i in range(300)],
    )
    with pytest.raises(DataError) as raised:
        inferred(tmp_path, **settings)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_list_is_no_single_label(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows([["joy"], ["joy", "fear"]]))
    with pytest.raises(
        DataError, match=r"column 'label' of a.jsonl holds \['joy'\], not one label"
    ):
        inferred(tmp_path)
    assert inferred(tmp_path, label_separator=";")["classes"] == ["fear", "joy"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "a.csv is empty; add rows to it"), ("text,label\n", "a.csv has no rows; add rows to it")],
)
def test_a_table_without_rows(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        inferred(tmp_path)


def test_the_right_number_answers_the_question(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows(range(150), 300))
    found = inferred(tmp_path, num_classes=150)
    assert found["classes"] == [str(number) for number in range(150)]


@pytest.mark.parametrize(
    ("name", "labels", "classes"),
    [
        ("a.csv", [10, 2, 1], ["1", "2", "10"]), ("a.csv", [1.0, 0.0, 2.0], ["0", "1", "2"]),
        ("a.csv", ["1", "1.0", "0."], ["0", "1"]), ("a.parquet", [1.0, float("nan"), -1.0], ["-1", "1"]),
        ("a.jsonl", [1, 1.0, "1.0", "0"], ["0", "1"]), ("a.csv", [0.5, 1.0, 2.0], ["0.5", "1.0", "2.0"]),
        ("a.parquet", [True, False], ["false", "true"]), ("a.jsonl", ["b", None, "a", " a "], ["a", "b"]),
        ("a.csv", ["joy", "", "e\u0301mu", "\u00e9mu"], ["joy", "\u00e9mu"]), ("a.csv", ["01", "02"], ["01", "02"]),
    ],
)  # fmt: skip
def test_classes_are_sorted(
    name: str, labels: list[Any], classes: list[str], tmp_path: Path
) -> None:
    write(tmp_path / name, rows(labels))
    assert inferred(tmp_path)["classes"] == classes


def test_all_rows_decide_the_classes(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [*rows(count=2500), *rows(["rare"], 2), *rows(["joi"], 1)])
    write(tmp_path / "test.csv", rows(["joy", "odd"]))
    given = {**OPEN, "folder": str(tmp_path)}
    found = {f.key: f for f in infer_tables(given, "text_column", has_classes=True)}["classes"]
    assert found.value == ["anger", "fear", "joi", "joy", "odd", "rare"]
    where = "column 'label' of train.csv; only test.csv has odd; one sample only: joi"
    assert found.why == where


def test_a_test_split_with_other_labels_only_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows(["0", "1"]))
    write(tmp_path / "test.csv", rows(["-1"]))
    with pytest.raises(DataError, match=r"test.csv has no label of train.csv but -1; correct it"):
        inferred(tmp_path)


@pytest.mark.parametrize(
    ("settings", "classes"),
    [
        ({"label_column": "tags", "label_separator": ";"}, ["a", "b", "c"]),
        ({"label_separator": ";"}, ["a", "b", "c"]),
        ({"label_column": ["joy", "anger"]}, ["joy", "anger"]),
        ({"label_column": "kind", "label_map": {"0": "ham", "1": "spam", 1: "spam"}}, ["ham", "spam"]),
    ],
)  # fmt: skip
def test_classes_of_other_labels(
    settings: dict[str, Any], classes: list[str], tmp_path: Path
) -> None:
    tags = ("a; b", "", "c;a")
    found = [
        {"text": text(i), "tags": tags[i % 3], "joy": i % 2, "anger": 1, "kind": i % 2}
        for i in range(12)
    ]
    write(tmp_path / "a.csv", found)
    assert inferred(tmp_path, **settings)["classes"] == classes


def test_what_is_set_is_kept_and_not_read(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "files": {"train": "a.csv", "val": None, "test": None}, "text_column": "t", "label_column": "l",
        "classes": ["x", "y"],
    }  # fmt: skip
    assert inferred(tmp_path, **settings) == {"num_classes": 2}


def test_a_table_of_images(tmp_path: Path) -> None:
    found = [
        {"file": f"cats/{i}.jpg", "note": text(i), "kind": ("cat", "dog")[i % 2]} for i in range(9)
    ]
    write(tmp_path / "a.csv", found)
    columns = inferred(tmp_path, "image_column")
    assert (columns["image_column"], columns["label_column"]) == ("file", "kind")
    assert columns["classes"] == ["cat", "dog"]


def on_the_hub(
    monkeypatch: pytest.MonkeyPatch, splits: dict[str, list[dict[str, Any]]], names: dict[str, Any]
) -> None:
    """Replace the hub by these splits."""

    def table(hub: str, split: str) -> HubTable:
        assert hub == "some/moods"
        found = splits[HUB_SPLITS[split]]
        return HubTable(list(found[0]), (Row(i, None, row) for i, row in enumerate(found)), names)

    monkeypatch.setattr("datamodules.inferring.table_source.hub_table", table)
    monkeypatch.setattr("datamodules.inferring.tables.hub_splits", lambda _: list(splits))


@pytest.mark.parametrize(
    ("names", "classes"), [({}, ["anger", "joy"]), ({"mood": ["joy", "anger"]}, ["joy", "anger"])]
)
def test_a_dataset_on_the_hub(
    names: dict[str, Any], classes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [{"note": text(i), "mood": ("joy", "anger")[i % 2]} for i in range(9)]
    on_the_hub(monkeypatch, {"train": found, "validation": found}, names)
    assert inferred(tmp_path / "moods", hub="some/moods") == {
        "files.train": "train", "files.val": "validation", "files.test": None, "test_fraction": 0.1,
        "label_column": "mood", "text_column": "note", "classes": classes, "num_classes": 2,
    }  # fmt: skip
    write(tmp_path / "moods" / "own.csv", rows())
    assert inferred(tmp_path / "moods", hub="some/moods")["files.train"] == "own.csv"


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_: str) -> list[str]:
        raise ConnectionError("no network")

    monkeypatch.setattr("datamodules.inferring.tables.hub_splits", unreachable)
    with pytest.raises(DataError) as raised:
        inferred(tmp_path / "moods", hub="some/moods")
    assert str(raised.value) == (
        f"no table in {tmp_path / 'moods'} nor on the hub as some/moods (no network); put the "
        f"files there (or set paths.data_dir), or go online once to download them"
    )


def test_a_hub_dataset_of_several_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unclear(_: str) -> list[str]:
        msg = "Config name is missing.\nPlease pick one among: ['a', 'b']"
        raise ValueError(msg)

    monkeypatch.setattr("datasets.get_dataset_split_names", unclear)
    message = (
        r"the splits of some/moods on the hub cannot be listed: Config name is missing. Please"
    )
    with pytest.raises(DataError, match=message):
        inferred(tmp_path / "moods", hub="some/moods")
