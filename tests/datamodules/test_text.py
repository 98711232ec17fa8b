"""Text datasets through the real entry point: errors in the data, and another dataset."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datamodules.covid_fake_news import CovidFakeNewsDataModule
from datamodules.reading.errors import DataError
from datamodules.samples import sample_text
from datamodules.text import TextDataModule
from datamodules.texts.cleaning import Cleaning
from datamodules.texts.tokenizing import TextTokenizer, vocabulary_tokenizer
from run_folders.run_folder import RunFolder
from tests.conftest import Train, made_rows, write_csv
from tests.datamodules.test_text_cleaning import OFF

DEFAULTS: dict[str, Any] = {
    "folder": "covid_fake_news",
    "files": {"train": "train.csv", "val": "val.csv", "test": "test.csv"},
    "classes": ["fake", "real"],
    "num_classes": 2,
    "tokenizer": {"vocab_size": 300},
    "cleaning": Cleaning(**{**OFF, "demojize": True}),
    "text_column": "tweet",
    "label_column": "label",
    "id_column": "id",
}


def covid(data_dir: Path, **more: Any) -> TextDataModule:
    return CovidFakeNewsDataModule(**{**DEFAULTS, "data_dir": str(data_dir), **more})


def spoil(data_dir: Path, content: str | bytes, name: str = "train.csv") -> None:
    path = data_dir / "covid_fake_news" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


GOOD = "".join(f"{i},text number {i},{'real' if i % 2 else 'fake'}\n" for i in range(100, 140))
HEAD = "id,tweet,label\n"
FAULTS = [
    (HEAD + GOOD + "1,a,maybe\n", ["train.csv, row 41 (line 42)", "label 'maybe' is none of fake, real"]),
    (HEAD + GOOD + "1,a,rael\n", ["did you mean real?"]),
    (HEAD + GOOD + "1,,real\n", ["train.csv, row 41 (line 42)", "column 'tweet' is empty"]),
    (HEAD + GOOD + "1,   ,real\n", ["column 'tweet' is empty"]),
    (HEAD + GOOD + "1,a,\n", ["label '' is none of"]),
    (HEAD + GOOD + "120,a,real\n", ["id '120' is already in row 21"]),
    (HEAD + GOOD + '1,"stray,real\n2,b,fake\n', ["row 41 (line 42)", "quote"]),
    (HEAD.encode() + GOOD.encode() + b"1,\xc3\xbc,real\n2,\xff\xfe,real\n", ["row 42 (line 43)", "is not UTF-8: byte 0xFF"]),
    (HEAD + GOOD + "1,a\n", ["has 2 fields where the header has 3"]),
]  # fmt: skip
WHOLE_FILE = [
    ("", ["train.csv is empty"]),
    (HEAD, ["train.csv has a header and no rows"]),
    ("id,text,label\n1,a,real\n", ["no column 'tweet'", "id, text, label", "data.text_column"]),
    ("id,tweet\n1,a\n", ["no column 'label'"]),
]


def run(
    train: Train, data: Path, backbone: Path, *overrides: str, folder: Path | None = None
) -> Any:
    overrides = (
        "experiment=bert_bigru_feature",
        f"model.backbone={backbone}",
        f"paths.data_dir={data}",
        "trainer.max_epochs=1",
        *overrides,
    )
    return train(*overrides, folder=folder)


@pytest.mark.parametrize(("content", "expected"), [*FAULTS, *WHOLE_FILE])
def test_bad_data_is_reported(
    content: str | bytes, expected: list[str], train: Train, covid_dir: Path, tiny_backbone: Path
) -> None:
    spoil(covid_dir, content)
    ended = run(train, covid_dir, tiny_backbone)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert len(ended.error.splitlines()) == 1
    for part in expected:
        assert part in ended.error, ended.error
    assert RunFolder(ended.folder).read_json("status.json")["state"] == "failed"


@pytest.mark.parametrize(("content", "expected"), FAULTS)
def test_bad_rows_can_be_left_out(
    content: str | bytes, expected: list[str], covid_dir: Path
) -> None:
    spoil(covid_dir, content)
    data = covid(covid_dir, on_bad_rows="skip")
    data.setup()
    assert len(data.bad_rows) == 1
    assert data.describe()["train"]["skipped_rows"] == 1
    rows = data.splits["train"].indices.tolist()
    assert data.bad_rows[0].row - 1 not in rows
    assert rows[:40] == list(range(40))


def test_left_out_rows_are_listed_in_the_run_folder(
    train: Train, covid_dir: Path, tiny_backbone: Path
) -> None:
    spoil(covid_dir, HEAD + GOOD + "1,a,maybe\n2,,real\n3,fine,real\n")
    ended = run(train, covid_dir, tiny_backbone, "data.on_bad_rows=skip")
    assert ended.code == 0, ended.err
    listed = pd.read_csv(ended.folder / "skipped_rows.csv")
    assert listed[["split", "file", "row", "line"]].to_numpy().tolist() == [
        ["train", "train.csv", 41, 42],
        ["train", "train.csv", 42, 43],
    ]
    assert "2 bad rows of train were left out" in RunFolder(ended.folder).report.read_text()
    assert "2 bad rows were left out: train.csv, row 41 (line 42): label 'maybe'" in ended.err
    assert f"{ended.folder / 'skipped_rows.csv'} lists the rows" in ended.err + ended.out
    assert RunFolder(ended.folder).read_json("provenance.json")["data"]["train"]["rows"] == 41


def test_many_bad_rows_are_counted_and_the_first_are_listed(covid_dir: Path) -> None:
    spoil(covid_dir, HEAD + GOOD + "".join(f"{i},x,maybe\n" for i in range(30)))
    with pytest.raises(DataError, match=r"30 bad rows.*\n(.*\n){10}.*and 20 more"):
        covid(covid_dir).setup()


def test_all_rows_bad_is_an_error_even_when_skipping(covid_dir: Path) -> None:
    spoil(covid_dir, HEAD + "1,a,maybe\n")
    with pytest.raises(DataError, match="the train split has no usable row; 1 were left out"):
        covid(covid_dir, on_bad_rows="skip").setup()


def test_same_text_in_two_splits_is_counted_and_logged(
    covid_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = made_rows(24, 2)
    spoil(covid_dir, HEAD + GOOD + "".join(f"9{i},{rows[i][1]},real\n" for i in range(3)))
    data = covid(covid_dir)
    data.setup()
    assert "3 texts occur in both train and val, for example: " in caplog.text
    overlap = data.describe()["overlaps"]
    assert [(o["splits"], o["count"]) for o in overlap] == [(["train", "val"], 3)]
    assert overlap[0]["examples"][0] == rows[0][1]


def test_data_that_is_read_with_a_warning_is_used(
    train: Train, covid_dir: Path, tiny_backbone: Path
) -> None:
    """Windows-1252, and a text that occurs in both train and test."""
    rows = made_rows(27, 3)
    content = HEAD + GOOD + f"9,it’s “quoted” – naïve,real\n10,{rows[4][1]},fake\n"
    spoil(covid_dir, content.encode("cp1252"))
    ended = run(train, covid_dir, tiny_backbone)
    assert ended.code == 0, ended.err
    assert "train.csv is not UTF-8; it is read as Windows-1252" in ended.err
    assert f"1 text occurs in both train and test, for example: {rows[4][1]}" in ended.err
    assert "1 text occurs in train and in test" in RunFolder(ended.folder).report.read_text()


def test_unusable_backbones_are_one_line_errors(
    train: Train, covid_dir: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    electra = "{model_type: electra, vocab_size: 200, hidden_size: 16, embedding_size: 16, num_hidden_layers: 1, num_attention_heads: 2}"
    ended = train(
        "experiment=bert_feature",
        f"model.backbone={electra}",
        f"data.tokenizer={tiny_backbone}",
        f"paths.data_dir={covid_dir}",
    )
    assert ended.code == 1
    assert (
        "ElectraModel has no pooler: choose model.pooling=cls or mean, or head=bigru" in ended.error
    )
    assert "Traceback" not in ended.err
    damaged = Path(shutil.copytree(tiny_backbone, tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"half")
    ended = run(train, covid_dir, damaged, folder=tmp_path / "second")
    assert ended.code == 1
    assert "no usable backbone in this folder" in ended.error
    assert "Traceback" not in ended.err
    damaged = Path(shutil.copytree(tiny_backbone, tmp_path / "damaged_tokenizer"))
    (damaged / "tokenizer.json").write_text('{"version": "1.0"}')
    ended = run(train, covid_dir, damaged, folder=tmp_path / "third")
    assert "no tokenizer in this folder" in ended.error
    assert "Traceback" not in ended.err


def test_the_one_overlap_of_the_real_data(shared_data: Path) -> None:
    data = covid(shared_data)
    data.setup()
    facts = data.describe()
    assert [facts[split]["rows"] for split in ("train", "val")] == [6420, 2140]
    assert [(o["splits"], o["count"]) for o in facts["overlaps"]] == [(["train", "val"], 1)]
    assert not data.bad_rows


def test_missing_data_is_reported_with_its_location_and_a_remedy(
    train: Train, tiny_backbone: Path, tmp_path: Path
) -> None:
    ended = run(train, tmp_path / "nowhere", tiny_backbone)
    assert ended.code == 1
    assert len(ended.error.splitlines()) == 1
    for part in (
        str(tmp_path / "nowhere" / "covid_fake_news"),
        "train.csv",
        "nanyy1025/covid_fake_news",
        "paths.data_dir",
        "go online",
    ):
        assert part in ended.error, ended.error


def test_a_folder_that_lacks_files_is_rejected(covid_dir: Path) -> None:
    (covid_dir / "covid_fake_news" / "val.csv").unlink()
    with pytest.raises(DataError, match=r"lacks val.csv; put it there, or set data.files"):
        covid(covid_dir).setup()


def test_without_a_val_file_val_is_a_stratified_part_of_train(covid_dir: Path) -> None:
    files = {"train": "train.csv", "val": None, "test": "test.csv"}
    parts = [covid(covid_dir, files=files, val_fraction=0.25) for _ in range(2)]
    for data in parts:
        data.setup()
        data.setup("test")  # a second call, as Lightning makes
    splits = parts[0].splits
    assert [len(splits[name].texts) for name in ("train", "val")] == [48, 16]
    assert sum(splits["val"].labels) == 8
    assert not set(splits["train"].indices) & set(splits["val"].indices)
    assert list(splits["val"].rows()) == list(parts[1].splits["val"].rows())


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_another_dataset_of_three_classes_needs_configuration_only(
    suffix: str, train: Train, tiny_backbone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine" / "moods"
    folder.mkdir(parents=True)
    for name, count, seed in (("train", 60, 1), ("test", 30, 2)):
        frame = pd.DataFrame(
            made_rows(count, seed, ("bad", "meh", "good")), columns=["n", "said", "mood"]
        )
        path = folder / f"{name}.{suffix}"
        match suffix:
            case "csv" | "tsv":
                frame.to_csv(path, sep="\t" if suffix == "tsv" else ",", index=False)
            case "jsonl":
                frame.to_json(path, orient="records", lines=True)
            case _:
                frame.to_parquet(path)
    ended = train(
        "data=text", "data.folder=moods", f"data.files={{train: train.{suffix}, val: null, test: test.{suffix}}}",
        "data.text_column=said", "data.label_column=mood", "data.classes=[bad,meh,good]", "data.num_classes=3",
        f"paths.data_dir={tmp_path / 'mine'}", "model=text_classifier", f"model.backbone={tiny_backbone}", "trainer.max_epochs=1",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    metrics = folder.read_json("metrics.json")["test"]
    assert metrics["classes"] == ["bad", "meh", "good"]
    assert [len(metrics["confusion_matrix"]), metrics["n"]] == [3, 30]
    assert "roc_auc" not in metrics
    predictions = pd.read_parquet(folder.predictions)
    probabilities = predictions[["probability_bad", "probability_meh", "probability_good"]]
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-6)
    assert (
        probabilities.idxmax(axis=1).str.removeprefix("probability_") == predictions["prediction"]
    ).all()


def test_integer_labels_are_class_indices(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    frame = pd.DataFrame(
        {"id": range(8), "tweet": [f"t{i}" for i in range(8)], "label": [0, 1] * 4}
    )
    for name in ("train", "val", "test"):
        frame.to_parquet(folder / f"{name}.parquet")
    files = {split: f"{split}.parquet" for split in ("train", "val", "test")}
    data = covid(tmp_path, folder="d", files=files)
    data.setup()
    assert data.splits["train"].labels.tolist() == [0, 1] * 4
    frame.assign(label=2).to_parquet(folder / "train.parquet")
    with pytest.raises(DataError, match=r"label 2 is outside of 0..1"):
        covid(tmp_path, folder="d", files=files).setup()


@pytest.mark.parametrize("column", ["tweet", "text"])
@pytest.mark.parametrize("kind", ["names", "numbers", "class labels"])
def test_columns_and_labels_of_the_hub_may_differ(
    column: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def load(name: str, split: str) -> datasets.Dataset:
        assert name == "nanyy1025/covid_fake_news"
        labels: list[Any] = ["fake", "real"] * 5 if kind == "names" else [0, 1] * 5
        table = datasets.Dataset.from_dict(
            {column: [f"{split} {i}" for i in range(10)], "label": labels}
        )
        return (
            table.cast_column("label", datasets.ClassLabel(names=["fake", "real"]))
            if kind == "class labels"
            else table
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = covid(tmp_path, hub="nanyy1025/covid_fake_news")
    data.setup()
    assert data.splits["val"].texts[:2] == ["validation 0", "validation 1"]
    assert data.splits["test"].labels.tolist() == [0, 1] * 5


def test_numbers_as_class_names_are_names_only(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    frame = pd.DataFrame(
        {"id": range(9), "tweet": [f"t{i}" for i in range(9)], "label": [1, 2, 3] * 3}
    )
    for name in ("train", "val", "test"):
        frame.to_parquet(folder / f"{name}.parquet")
    files = {split: f"{split}.parquet" for split in ("train", "val", "test")}
    data = covid(tmp_path, folder="d", files=files, classes=["1", "2", "3"], num_classes=3)
    data.setup()
    assert data.splits["train"].labels.tolist() == [0, 1, 2] * 3
    frame.assign(label=0).to_parquet(folder / "train.parquet")
    with pytest.raises(DataError, match="label '0' is none of 1, 2, 3"):
        covid(tmp_path, folder="d", files=files, classes=["1", "2", "3"], num_classes=3).setup()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (5, "holds 5, which is int, not text"),
        (None, "is empty"),
        ("a\ud83d", "surrogate U\\+D83D"),
    ],
)
def test_values_that_are_not_text_are_reported(text: object, reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    good = [{"id": i, "tweet": f"t{i}", "label": "fake"} for i in range(3)]
    for name in ("train", "val", "test"):
        rows = [*good, {"id": 9, "tweet": text, "label": "real"}] if name == "train" else good
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {split: f"{split}.jsonl" for split in ("train", "val", "test")}
    with pytest.raises(DataError, match=rf"train.jsonl, row 4 \(line 4\): .*{reason}"):
        covid(tmp_path, folder="d", files=files).setup()


def test_a_class_named_twice_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names a class twice"):
        covid(tmp_path, classes=["real", "real"])


def test_hub_copy_without_the_columns_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    table = datasets.Dataset.from_dict({"x": ["a"], "label": ["fake"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: table)
    with pytest.raises(DataError, match=r"has the columns x, label; set data.text_column"):
        covid(tmp_path, hub="some/copy").setup()
    with pytest.raises(DataError, match="some/copy on the hub, train: no column 'tweet'"):
        TextDataModule(**{**DEFAULTS, "data_dir": str(tmp_path), "hub": "some/copy"}).setup()


def test_missing_tokenizer_folder_is_reported_with_a_remedy(
    train: Train, covid_dir: Path, tmp_path: Path
) -> None:
    ended = run(train, covid_dir, tmp_path / "no_backbone")
    assert ended.code == 1
    assert len(ended.error.splitlines()) == 1
    assert str(tmp_path / "no_backbone") in ended.error
    assert "model.backbone" in ended.error


def test_vocabulary_is_the_same_for_the_same_texts_and_knows_its_characters() -> None:
    texts = [text for text, _ in sample_text(200, seed=1)]
    first, second = vocabulary_tokenizer(texts, 300), vocabulary_tokenizer(iter(texts), 300)
    assert first.backend.to_str() == second.backend.to_str()
    assert first.vocab_size <= 300
    ids = first.encode(texts, max_length=16)
    assert ids.lengths.max() == 16
    ends = ids.lengths.cumsum()
    assert set(ids.flat[ends - ids.lengths]) == {2}
    assert set(ids.flat[ends - 1]) == {3}  # truncated texts keep their end token
    unknown = first.backend.token_to_id("[UNK]")
    assert unknown not in first.encode(texts, max_length=500).flat
    again = TextTokenizer.from_state(first.to_state())
    assert np.array_equal(again.encode(texts, 64).flat, first.encode(texts, 64).flat)


def test_sample_text_is_balanced_varied_and_not_decided_by_single_words() -> None:
    rows = sample_text(2000, seed=0)
    assert rows == sample_text(2000, seed=0)
    assert rows != sample_text(2000, seed=1)
    assert len({text for text, _ in rows}) == 2000
    share = sum(label == "real" for _, label in rows) / 2000
    assert 0.4 < share < 0.6
    lengths = [len(text) for text, _ in rows]
    assert max(lengths) > 3 * min(lengths)
    assert any("https://" in text for text, _ in rows)
    assert any(not text.isascii() for text, _ in rows)
    words = {word for text, _ in rows for word in text.lower().split()}
    for word in words:
        having = [label for text, label in rows if word in text.lower().split()]
        if len(having) > 100:
            assert 0.1 < having.count("real") / len(having) < 0.9, word


def test_csv_written_by_a_spreadsheet(covid_dir: Path) -> None:
    rows = made_rows(24, 5)
    path = write_csv(covid_dir / "covid_fake_news" / "train.csv", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    data = covid(covid_dir)
    data.setup()
    assert list(data.splits["train"].texts) == [row[1] for row in rows]


def test_a_run_without_test_needs_no_test_file(
    train: Train, covid_dir: Path, tiny_backbone: Path
) -> None:
    (covid_dir / "covid_fake_news" / "test.csv").unlink()
    overrides = (
        "experiment=bert_feature", f"paths.data_dir={covid_dir}", f"model.backbone={tiny_backbone}", "trainer.max_epochs=1",
    )  # fmt: skip
    ended = train(*overrides, "test=false", "data.files.test=null")
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    assert set(folder.read_json("provenance.json")["data"]) == {"train", "val", "overlaps"}
    assert "test" not in folder.read_json("metrics.json")
    ended = train(*overrides, "data.files.test=null", folder=ended.folder.with_name("other"))
    assert (
        "data.files.test: received None; name a file, set data.test_fraction, or set" in ended.error
    )


def test_a_train_file_that_is_too_small_to_draw_from(covid_dir: Path) -> None:
    path = covid_dir / "covid_fake_news" / "train.csv"
    path.write_text("id,tweet,label\n1,one,real\n2,two,fake\n")
    files = {"train": "train.csv", "val": None, "test": "test.csv"}
    with pytest.raises(DataError, match=r"data.val_fraction=0.1: the train file has too few rows"):
        covid(covid_dir, files=files).setup()


@pytest.mark.parametrize("monitor", ["val/roc_auc", "val/average_precision"])
def test_a_monitored_metric_that_is_not_defined_is_named_before_training(
    monitor: str, train: Train, covid_dir: Path, tiny_backbone: Path
) -> None:
    path = covid_dir / "covid_fake_news" / "val.csv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], *(row for row in rows if row.endswith(",real"))]) + "\n")
    ended = train(
        "experiment=bert_feature", f"paths.data_dir={covid_dir}", f"model.backbone={tiny_backbone}",
        f"monitor={monitor}",
    )  # fmt: skip
    assert f"monitor: {monitor} is not defined on the val split" in ended.error
    assert not RunFolder(ended.folder).last_checkpoint.exists()


def test_padded_tokens_are_those_of_the_evaluation_batches(covid_dir: Path) -> None:
    data = covid(covid_dir, eval_batch_size=8)
    data.setup()
    facts = data.describe()
    for name in ("train", "val", "test"):
        batches = data.feature_input(name).loader()
        read = sum(batch["input_ids"].numel() for batch in batches)
        assert facts[name]["padded_tokens"] == read > facts[name]["tokens"]
