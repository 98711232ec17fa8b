"""Runs with several labels for each text or image, from the table to the page."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk

from datamodules.reading.errors import DataError
from engine.evaluation import evaluate, evaluate_on
from engine.predict import predict
from engine.publishing.contents import run_contents
from reports.comparison import write_comparison
from run_folders.kinds import KINDS
from run_folders.metrics import MULTILABEL
from run_folders.run_folder import RunFolder
from tests.conftest import SHARED_DATA, Train
from tests.images import COLOURS, encoded, picture
from tests.processes import run_ranks

WORDS = {"joy": "happy", "anger": "furious", "fear": "afraid"}
NAMES = list(WORDS)
TEXTS = (
    "data=multilabel_text", "data.folder=moods", "model=multilabel_text_classifier", "data.tokenizer={vocab_size: 200}",
    "model.backbone={model_type: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16, vocab_size: 200, max_position_embeddings: 64}",
    "data.max_length=32", "model.pooling=mean", "model.backbone_lr=3e-3", "model.lr=1e-2", "data.batch_size=8", "trainer.max_epochs=3",
)  # fmt: skip
COLUMNS = f"data.label_column=[{','.join(NAMES)}]"


def mood_rows(count: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        chosen = {name: int(rng.random() < 0.4) for name in NAMES}
        words = [WORDS[name] for name in NAMES if chosen[name]]
        tags = ";".join(name for name in NAMES if chosen[name])
        rows.append(
            {"text": f"note {i}: " + " and ".join(words or ["calm"]), **chosen, "tags": tags}
        )
    return rows


def write_moods(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for seed, (split, count) in enumerate({"train": 60, "val": 20, "test": 24}.items()):
        pd.DataFrame(mood_rows(count, seed)).to_csv(folder / f"{split}.csv", index=False)
    return folder.parent


def test_texts_with_a_column_for_each_label(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (*TEXTS, COLUMNS, f"paths.data_dir={write_moods(tmp_path / 'data' / 'moods')}")
    ended = train(*overrides)
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    metrics = folder.read_json("metrics.json")
    assert (metrics["kind"], metrics["best"]["monitor"]) == ("multilabel", "val/map")
    assert list(metrics["test"]["per_class"]) == NAMES
    checkpoint = torch.load(folder.best_checkpoint, weights_only=True)
    thresholds = checkpoint["state_dict"]["thresholds"].numpy()
    assert thresholds.tolist() == [
        row["threshold"] for row in metrics["test"]["per_class"].values()
    ]
    for split in ("val", "test"):
        table = pd.read_parquet(folder.predictions_of(split))
        truth, scores = (
            table[[f"{what}_{name}" for name in NAMES]].to_numpy()
            for what in ("label", "probability")
        )
        chosen = (scores >= thresholds).astype(int)
        assert (table[[f"prediction_{name}" for name in NAMES]].to_numpy() == chosen).all()
        found = metrics[split]
        assert found["map"] == sk.average_precision_score(truth, scores, average="macro")
        assert found["f1_macro"] == sk.f1_score(truth, chosen, average="macro", zero_division=0)
        assert found["exact_match"] == sk.accuracy_score(truth, chosen)
    page = folder.report.read_text()
    for part in ("mean average precision", "Mistakes by label", "threshold", "95 %", "val.parquet"):
        assert part in page, part
    names = [name for _, name, _ in run_contents(folder)]
    assert {"test/classes", "test/mistakes"} <= set(names)
    assert "test/confusion" not in names
    assert evaluate(folder.path, None) == 0

    new = pd.DataFrame(mood_rows(24, 2))
    new[["text"]].to_csv(tmp_path / "new.csv", index=False)
    out = pd.read_csv(predict(folder.path, [tmp_path / "new.csv"], tmp_path / "out.csv"))
    tested = pd.read_parquet(folder.predictions)
    joined = [
        ";".join(name for name in NAMES if row[f"prediction_{name}"])
        for _, row in tested.iterrows()
    ]
    assert out["prediction"].fillna("").tolist() == joined
    assert out["probability_joy"].to_numpy() == pytest.approx(tested["probability_joy"], abs=1e-5)

    new.drop(columns="tags").to_csv(tmp_path / "other.csv", index=False)
    result = json.loads(evaluate_on(folder.path, tmp_path / "other.csv").read_text())
    assert {key: result[key] for key in ("n", "map", "f1_micro", "loss")} == pytest.approx(
        {key: metrics["test"][key] for key in ("n", "map", "f1_micro", "loss")}, abs=1e-6
    )
    (table,) = (folder.path / "evaluations").glob("other-*.parquet")
    assert len(pd.read_parquet(table)) == 24
    capsys.readouterr()

    again = train(*overrides, "seed=2", folder=tmp_path / "again")
    assert again.code == 0, again.err
    page = write_comparison([folder.path, again.folder], tmp_path / "both.html").read_text()
    assert "sign test on the number of correct labels" in page
    assert "not the same test samples" not in page


def test_separated_labels_train_the_same_and_a_resumed_run_equals_a_whole_one(
    train: Train, tmp_path: Path
) -> None:
    overrides = (*TEXTS, f"paths.data_dir={write_moods(tmp_path / 'data' / 'moods')}")
    separated = (
        "data.label_column=tags",
        "data.label_separator=';'",
        f"data.classes=[{','.join(NAMES)}]",
    )
    whole = train(*overrides, COLUMNS, folder=tmp_path / "whole")
    parts = (*overrides, *separated, "schedule=constant")
    assert whole.code == 0, whole.err
    first = train(*parts, "trainer.max_epochs=2", folder=tmp_path / "parts")
    assert first.code == 0, first.err
    resumed = train(*parts, "ckpt_path=last", folder=tmp_path / "parts")
    assert resumed.code == 0, resumed.err
    at_once = train(*parts, folder=tmp_path / "at_once")
    assert at_once.code == 0, at_once.err
    tests = [RunFolder(e.folder).read_json("metrics.json")["test"] for e in (resumed, at_once)]
    assert tests[0] == tests[1]
    tables = [
        pd.read_parquet(RunFolder(e.folder).predictions)["label_anger"] for e in (whole, at_once)
    ]
    assert tables[0].equals(tables[1])


def test_averaged_weights_have_the_predictions_and_thresholds_of_the_best_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lowest `map` is chosen, so that the last epoch is not the best one.
    metrics = tuple(
        replace(metric, better="min") if metric.name == "map" else metric for metric in MULTILABEL
    )
    monkeypatch.setitem(KINDS, "multilabel", replace(KINDS["multilabel"], metrics=metrics))
    ended = train(
        *TEXTS, COLUMNS, f"paths.data_dir={write_moods(tmp_path / 'data' / 'moods')}",
        "+callbacks.average={_target_: lightning.pytorch.callbacks.EMAWeightAveraging, decay: 0.8}",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    found = folder.read_json("metrics.json")
    assert found["best"]["epoch"] < 2
    table = pd.read_parquet(folder.predictions_of("val"))
    truth, scores, chosen = (
        table[[f"{what}_{name}" for name in NAMES]].to_numpy()
        for what in ("label", "probability", "prediction")
    )
    assert found["val"]["map"] == sk.average_precision_score(truth, scores, average="macro")
    assert found["val"]["exact_match"] == sk.accuracy_score(truth, chosen)
    assert evaluate(folder.path, None) == 0


def test_runs_with_other_labels_are_not_compared(train: Train, tmp_path: Path) -> None:
    overrides = (
        *TEXTS,
        f"paths.data_dir={write_moods(tmp_path / 'data' / 'moods')}",
        "trainer.max_epochs=1",
    )
    all_labels = train(*overrides, COLUMNS, folder=tmp_path / "all")
    two_labels = train(*overrides, "data.label_column=[joy,anger]", folder=tmp_path / "two")
    for runs in ([all_labels, two_labels], [two_labels, all_labels]):
        page = write_comparison([run.folder for run in runs], tmp_path / "both.html").read_text()
        assert "not the same test samples" in page


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=text_classifier", COLUMNS], "TextClassifier needs one class for each sample, and the data has several labels"),
        (
            ["data.label_column=tags", "data.label_separator=';'", "data.classes=[joy,anger]", "data.on_bad_rows=error"],
            "label 'fear' is none of joy, anger",
        ),
        ([COLUMNS, "loss=cross_entropy"], "is 0 for logits of 0 and samples without labels"),
        (["data.label_column=[joy,text]", "data.text_column=tags"], "column 'text' holds"),
        (["data.label_column=[joy,sorrow]"], "no column 'sorrow'"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line(
    overrides: list[str], message: str, train: Train, tmp_path: Path
) -> None:
    data = write_moods(tmp_path / "data" / "moods")
    ended = train(*TEXTS, f"paths.data_dir={data}", *overrides)
    assert ended.code == 1
    assert message in ended.error
    assert "Traceback" not in ended.err


def write_pictures(folder: Path) -> Path:
    """Image files, and CSV files with their paths and a 0/1 column for each attribute."""
    attributes = {"bright": ("white",), "coloured": ("red", "green", "blue"), "cold": ("blue",)}
    for place, (split, count) in enumerate({"train": 50, "val": 20, "test": 20}.items()):
        (folder / split).mkdir(parents=True)
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *attributes])
            for i in range(count):
                colour = list(COLOURS)[i % 5]
                name = f"{split}/{i}.png"
                (folder / name).write_bytes(encoded(picture(colour, 1000 * place + i)))
                writer.writerow([name, *(int(colour in having) for having in attributes.values())])
    return folder.parent


IMAGES = (
    "data=multilabel_image", "data.folder=pictures", "data.label_column=[bright,coloured,cold]", "data.size=16",
    "model=multilabel_image_classifier", "model.backbone={architecture: small_resnet, widths: [8, 8], depth: 1}",
    "model.backbone_lr=3e-3", "model.lr=1e-2", "data.batch_size=10", "trainer.max_epochs=4",
)  # fmt: skip


def test_images_from_a_table_of_paths(train: Train, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data" / "pictures")
    ended = train(*IMAGES, f"paths.data_dir={data}", "model.tta_flip=true")
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    assert folder.read_json("metrics.json")["test"]["n"] == 20
    assert pd.read_parquet(folder.predictions)["image"].iloc[0] == "test.csv, row 1"
    assert evaluate(folder.path, None) == 0
    listed = predict(folder.path, [data / "pictures" / "test.csv"], tmp_path / "listed.csv")
    names = ("bright", "coloured", "cold")
    probabilities = [f"probability_{name}" for name in names]
    expected = pd.read_parquet(folder.predictions)[probabilities].to_numpy()
    assert pd.read_csv(listed)[probabilities].to_numpy() == pytest.approx(expected, abs=1e-5)
    out = predict(folder.path, [data / "pictures" / "test"], tmp_path / "out.csv")
    assert list(pd.read_csv(out)) == [
        "image", "prediction", "probability_bright", "probability_coloured", "probability_cold",
    ]  # fmt: skip
    result = json.loads(evaluate_on(folder.path, data / "pictures" / "val.csv").read_text())
    assert result["n"] == 20
    (tmp_path / "too_long.csv").write_text(f"image\n{'a' * 5000}\n")
    with pytest.raises(DataError, match=r"too_long.csv, row 1 \(line 2\): there is no file"):
        predict(folder.path, [tmp_path / "too_long.csv"], tmp_path / "none.csv")
    table = data / "pictures" / "train.csv"
    table.write_text(table.read_text().replace("train/7.png", "train/77.png"))
    ended = train(*IMAGES, f"paths.data_dir={data}", folder=tmp_path / "missing")
    assert (
        f"train.csv, row 8 (line 9): there is no file {data}/pictures/train/77.png" in ended.error
    )
    (data / "pictures" / "test.csv").unlink()
    ended = train(
        *IMAGES, f"paths.data_dir={data}", "data.files.test=test", folder=tmp_path / "folders"
    )
    assert "images in class folders have one class each" in ended.error


def test_cached_features_and_two_processes_have_the_same_metrics(
    train: Train, tmp_path: Path
) -> None:
    data = write_pictures(tmp_path / "data" / "pictures")
    overrides = [
        *IMAGES,
        f"paths.data_dir={data}",
        "model.freeze_backbone=true",
        "trainer.accelerator=cpu",
    ]
    plain = train(*overrides, "cache.features=false", folder=tmp_path / "plain")
    cached = train(*overrides, "cache.features=true", folder=tmp_path / "cached")
    assert (plain.code, cached.code) == (0, 0), plain.err + cached.err
    ranks = run_ranks(
        2, *overrides, "cache.features=false", f"hydra.run.dir={tmp_path / 'ranks'}", cwd=tmp_path
    )
    assert all(code == 0 for code, *_ in ranks), ranks
    expected = RunFolder(plain.folder).read_json("metrics.json")["test"]
    for folder in (cached.folder, tmp_path / "ranks"):
        found = RunFolder(folder).read_json("metrics.json")["test"]
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert found["map"] == pytest.approx(expected["map"], abs=0.02)
        for name in expected["classes"]:
            rows = [test["per_class"][name] for test in (found, expected)]
            assert rows[0]["threshold"] == pytest.approx(rows[1]["threshold"], abs=1e-3)
            assert rows[0]["positives"] == rows[1]["positives"]


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the real data are not here")
def test_attributes_of_real_images(train: Train, tmp_path: Path) -> None:
    """CIFAR-10, with attributes that follow from the class."""
    classes = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    attributes = {
        "animal": {"bird", "cat", "deer", "dog", "frog", "horse"},
        "vehicle": {"airplane", "automobile", "ship", "truck"},
        "flies": {"airplane", "bird"},
        "hoofed": {"deer", "horse"},
    }
    (tmp_path / "data" / "attributes").mkdir(parents=True)
    for split, count in (("train", 1500), ("test", 400)):
        table = pd.read_parquet(SHARED_DATA / "cifar10" / f"{split}.parquet").head(count)
        for name, having in attributes.items():
            table[name] = [int(classes[label] in having) for label in table["label"]]
        table.drop(columns="label").to_parquet(
            tmp_path / "data" / "attributes" / f"{split}.parquet", index=False
        )
    ended = train(
        "data=multilabel_image", "data.folder=attributes", "data.image_column=img", "data.size=null",
        "data.files={train: train.parquet, val: null, test: test.parquet}", f"data.label_column=[{','.join(attributes)}]",
        "model=multilabel_image_classifier", "model.backbone={architecture: small_resnet, widths: [16, 32], depth: 1}",
        "model.lr=1e-3", "model.backbone_lr=3e-3", "trainer.max_epochs=2", f"paths.data_dir={tmp_path / 'data'}",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    test = RunFolder(ended.folder).read_json("metrics.json")["test"]
    for name, rows in test["per_class"].items():
        chance = rows["positives"] / test["n"]
        assert rows["average_precision"] > 1.25 * chance, name
    assert test["n"] == 400
