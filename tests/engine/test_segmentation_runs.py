"""Segmentation runs: prediction, evaluation, resuming, and tests of weights without training."""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from transformers import AutoConfig, AutoModelForSemanticSegmentation

from datamodules.reading.errors import DataError
from datamodules.reading.formats import TableFormat
from engine.evaluation import evaluate, evaluate_on
from engine.predict import open_run, predict
from lightning_modules.segmenter import Segmenter
from run_folders.run_folder import RunFolder, RunFolderError
from tests.conftest import Train, identical
from tests.images import BAD_IMAGES
from tests.masks import COLOURS, NAMES, class_list, image_of, mask, segmentation_folder
from tests.processes import run
from tests.turning import SHOWN, stored, tagged

SEGFORMER = {
    "model_type": "segformer", "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 16, "num_labels": 11,
}  # fmt: skip
OVERRIDES = (
    "data=segmentation", "data.folder=rooms", "data.num_classes=11", "data.size=32", "data.batch_size=4", "model=segmenter",
    "model.lr=1e-2", "model.backbone_lr=1e-2", "monitor=val/miou", "data.augmentation.scale=[0.5,2.0]", "data.augmentation.flip=true",
    "data.augmentation.photometric=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a moved run, whose network and class list were deleted."""
    root = tmp_path_factory.mktemp("masks")
    segmentation_folder(root / "data" / "rooms", {"train": 8, "val": 3, "test": 5}, shift=1)
    class_list(root / "rooms.yaml", zero_is_unlabelled=True, ignore_value=None)
    torch.manual_seed(0)
    rest = {key: value for key, value in SEGFORMER.items() if key != "model_type"}
    AutoModelForSemanticSegmentation.from_config(
        AutoConfig.for_model("segformer", **rest)
    ).save_pretrained(root / "network")
    overrides = [
        *OVERRIDES, f"data.class_list={root / 'rooms.yaml'}", f"paths.data_dir={root / 'data'}",
        f"model.backbone={root / 'network'}", "trainer.max_epochs=2", "trainer.accelerator=cpu", f"hydra.run.dir={root / 'run'}",
    ]  # fmt: skip
    code, _, errors = run(*overrides, cwd=root)
    assert code == 0, errors
    (root / "run").rename(root / "moved")
    shutil.rmtree(root / "network")
    (root / "rooms.yaml").unlink()
    return root


def test_a_run_is_evaluated_from_its_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(root / "moved", None) == 0
    assert "all metrics equal metrics.json" in capsys.readouterr().out


def test_folders_of_other_masks_are_read_as_splits(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    segmentation_folder(tmp_path / "more", {"test": 2, ".": 3}, shift=1)
    for folder, images, count in (
        (tmp_path / "more", "images/test", 2),
        (shutil.copytree(root / "data" / "rooms", tmp_path / "copy"), "images/test", 5),
    ):
        record = json.loads(evaluate_on(root / "moved", folder).read_text())
        assert record["n"] == count
        assert f"{folder}: the images are those of {folder / images}" in caplog.messages
    assert "too good" not in caplog.text
    shutil.rmtree(tmp_path / "more" / "images" / "test")
    shutil.rmtree(tmp_path / "more" / "annotations" / "test")
    record = json.loads(evaluate_on(root / "moved", tmp_path / "more").read_text())
    assert record["n"] == 3
    assert f"the images are those of {tmp_path / 'more' / 'images'}" in caplog.messages[-1]


def test_masks_that_the_run_was_trained_on_are_reported(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The dataset's layout has a folder for each split; test is drawn from train."""
    folder = shutil.copytree(root / "moved", tmp_path / "run")
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.data.files.test = None
    OmegaConf.save(cfg, folder / "config.yaml")
    evaluate_on(folder, root / "data" / "rooms")
    assert "8 of 8 images are in the train split of this run" in caplog.text


def test_masks_of_new_images_are_predicted(root: Path, tmp_path: Path) -> None:
    arguments = (
        root / "moved",
        root / "data" / "rooms" / "images" / "test",
        "-o",
        tmp_path / "out",
        "--device",
        "cpu",
    )
    code, out, errors = run(*arguments, program="scripts/predict.py", cwd=tmp_path)
    assert code == 0, errors
    assert "5 predicted, 0 left out" in errors
    assert "images with annotations: 5; mean IoU" in errors
    assert out.strip() == str(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{i:03}.{kind}.png" for i in range(5) for kind in ("labels", "colours", "overview")
    )
    labels, colours = (
        Image.open(tmp_path / "out" / f"002.{kind}.png") for kind in ("labels", "colours")
    )
    assert (labels.mode, labels.size, colours.size) == ("L", (40, 32), (40, 32))
    values = np.asarray(labels)
    assert values.min() >= 1  # as in the dataset's masks, 0 means not labelled
    assert values.max() <= 11
    assert (np.asarray(colours) == np.asarray(COLOURS, np.uint8)[values - 1]).all()
    # The logits of the network, upsampled to the size of the image.
    opened = open_run(root / "moved", "cpu")
    image = np.asarray(Image.open(root / "data" / "rooms" / "images" / "test" / "002.jpg"))
    small = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC))
    with torch.no_grad():
        logits = opened.task.network(
            {"pixel_values": torch.from_numpy(small.copy()).permute(2, 0, 1)[None]}
        ).logits
    expected = torch.nn.functional.interpolate(logits, size=(32, 40), mode="bilinear").argmax(
        dim=1
    )[0]
    assert (expected.numpy() == values - 1).all()


def test_the_output_of_a_folder_is_written_beside_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(image_of(mask(5, (50, 70)))).save(tmp_path / "photos" / "a.png")
    out = predict(root / "moved", [tmp_path / "photos"], device="cpu")
    assert out == tmp_path / "photos.predictions"
    assert Image.open(out / "a.labels.png").size == (50, 70)


def test_invalid_annotations_are_ignored_unless_requested(root: Path, tmp_path: Path) -> None:
    for kind in ("images", "annotations"):
        (tmp_path / kind / "mine").mkdir(parents=True)
    Image.fromarray(image_of(mask(5))).save(tmp_path / "images" / "mine" / "a.png")
    Image.fromarray(image_of(mask(5))).save(tmp_path / "annotations" / "mine" / "a.png")
    predict(root / "moved", [tmp_path / "images" / "mine"], tmp_path / "out", device="cpu")
    assert Image.open(tmp_path / "out" / "a.overview.png").width < 3 * 240
    with pytest.raises(DataError, match=r"annotations/mine/a\.png: has RGB colours"):
        predict(
            root / "moved", [tmp_path / "images" / "mine"], tmp_path / "out2",
            annotations=tmp_path / "annotations" / "mine", device="cpu",
        )  # fmt: skip


def test_annotations_are_shown_if_there_are_any(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "truth" / "deep").mkdir(parents=True)
    for name in ("deep/a", "b"):
        Image.fromarray(image_of(mask(5))).save(tmp_path / "photos" / f"{name}.png")
    Image.fromarray(mask(5) + np.uint8(1)).save(tmp_path / "truth" / "deep" / "a.png")
    predict(
        root / "moved",
        [tmp_path / "photos"],
        tmp_path / "out",
        annotations=tmp_path / "truth",
        device="cpu",
    )
    assert "images with annotations: 1;" in capsys.readouterr().err
    with_truth, without = (
        Image.open(tmp_path / "out" / f"{name}.overview.png") for name in ("deep/a", "b")
    )
    assert with_truth.width > 1.4 * without.width
    Image.fromarray(np.full((32, 40), 200, np.uint8)).save(tmp_path / "truth" / "b.png")
    with pytest.raises(DataError, match=r"truth/b\.png: has the value 200 in 1,280 pixels"):
        predict(
            root / "moved",
            [tmp_path / "photos"],
            tmp_path / "out2",
            annotations=tmp_path / "truth",
            device="cpu",
        )
    assert (tmp_path / "out2" / "deep" / "a.labels.png").exists()  # earlier predictions are kept
    with pytest.raises(DataError, match=r"--annotations \S+none: no such folder"):
        predict(
            root / "moved",
            [tmp_path / "photos"],
            tmp_path / "out3",
            annotations=tmp_path / "none",
            device="cpu",
        )


def test_bad_images_existing_files_and_equal_names_are_rejected(root: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(image_of(mask(5))).save(photos / "a.png")
    (photos / "b.png").write_bytes(BAD_IMAGES["truncated.png"][0])
    run = root / "moved"
    with pytest.raises(DataError, match=r"b\.png: is truncated.*--on-bad-rows skip"):
        predict(run, [photos], tmp_path / "out", device="cpu")
    with pytest.raises(RunFolderError, match=r"a\.labels\.png exists; give another -o, or --force"):
        predict(run, [photos], tmp_path / "out", on_bad_rows="skip", device="cpu")
    predict(run, [photos], tmp_path / "out", on_bad_rows="skip", force=True, device="cpu")
    (tmp_path / "more").mkdir()
    shutil.copy(photos / "a.png", tmp_path / "more" / "a.png")
    with pytest.raises(
        DataError,
        match=r"more/a\.png and \S+photos/a\.png would both be written as a; predict them into two",
    ):
        predict(
            run, [photos / "a.png", tmp_path / "more" / "a.png"], tmp_path / "out2", device="cpu"
        )
    (tmp_path / "file.png").write_bytes(b"x")
    with pytest.raises(
        RunFolderError, match="is a file; masks are written into a folder: give another -o"
    ):
        predict(run, [photos], tmp_path / "file.png", force=True, device="cpu")
    (tmp_path / "t.csv").write_text("a")
    with pytest.raises(DataError, match=r"t.csv: no column 'image'"):
        predict(run, [tmp_path / "t.csv"], tmp_path / "out3", device="cpu")


@pytest.mark.parametrize("orientation", SHOWN)
def test_masks_are_predicted_as_viewers_show_the_images(
    orientation: int, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an annotation beside the image or without, the image is turned alike."""
    shown = mask(7, (40, 32))
    for kind in ("images", "annotations"):
        (tmp_path / kind / "mine").mkdir(parents=True)
    content = tagged(stored(image_of(shown), orientation), orientation)
    truth = stored(shown + np.uint8(1), orientation)
    (tmp_path / "alone.png").write_bytes(content)
    (tmp_path / "images" / "mine" / "beside.png").write_bytes(content)
    (tmp_path / "annotations" / "mine" / "beside.png").write_bytes(tagged(truth, orientation))
    Image.fromarray(image_of(shown)).save(tmp_path / "by_hand.png")
    out = tmp_path / "out"
    predict(root / "moved", [tmp_path / "by_hand.png"], out, device="cpu")
    predict(root / "moved", [tmp_path / "alone.png"], out, device="cpu")
    predict(root / "moved", [tmp_path / "images" / "mine"], out, device="cpu")
    assert "images with annotations: 1; mean IoU" in capsys.readouterr().err
    expected = np.asarray(Image.open(out / "by_hand.labels.png"))
    for name in ("alone", "beside"):
        assert np.array_equal(np.asarray(Image.open(out / f"{name}.labels.png")), expected)
    with_truth = np.asarray(Image.open(out / "beside.overview.png"))
    plain = np.asarray(Image.open(out / "by_hand.overview.png"))
    assert with_truth.shape[1] > plain.shape[1]


@pytest.mark.parametrize("masks", ["{split}", "{split}/masks"])
def test_masks_among_the_images_are_not_predicted(
    masks: str, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(root / "moved", tmp_path / "run")
    config = (run / "config.yaml").read_text()
    for old, new in (
        ("images: images/{split}", "images: '{split}'"),
        ("annotations: annotations/{split}", f"annotations: '{masks}'"),
        ("annotation_suffix: .png", "annotation_suffix: _mask.png"),
    ):
        assert old in config
        config = config.replace(old, new)
    (run / "config.yaml").write_text(config)
    photos = tmp_path / "photos"
    inside = tmp_path / masks.format(split="photos")
    inside.mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(image_of(mask(5))).save(photos / f"{name}.png")
        Image.fromarray(mask(5) + np.uint8(1)).save(inside / f"{name}_mask.png")
    with caplog.at_level("INFO"):
        out = predict(run, [photos], tmp_path / "out", device="cpu")
    names = {path.name.split(".")[0] for path in out.rglob("*.png")}
    assert names == {"a", "b"}
    assert f"{photos}: 2 masks among the images are not predicted" in caplog.text
    assert Image.open(out / "a.overview.png").width > 3 * 40


def test_bad_files_are_counted_and_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(image_of(mask(5))).save(photos / "a.png")
    (photos / "notes.txt").write_text("hello")
    (photos / ".b.png").write_bytes((photos / "a.png").read_bytes())
    (photos / "Thumbs.db").write_bytes(b"x")
    with pytest.raises(DataError, match="2 bad rows"):
        predict(root / "moved", [photos], tmp_path / "out", device="cpu")
    predict(
        root / "moved", [photos], tmp_path / "out", on_bad_rows="skip", device="cpu", force=True
    )
    assert "1 predicted, 2 left out" in capsys.readouterr().err


def test_rows_of_a_table_are_predicted(root: Path, tmp_path: Path) -> None:
    file = root / "data" / "rooms" / "images" / "test" / "001.jpg"
    pd.DataFrame({"image": [file.read_bytes()] * 2}).to_parquet(tmp_path / "photos.parquet")
    out = predict(root / "moved", [tmp_path / "photos.parquet"], tmp_path / "out", device="cpu")
    predict(root / "moved", [file], tmp_path / "alone", device="cpu")
    for row in (1, 2):
        assert (out / f"photos.row{row}.labels.png").read_bytes() == (
            tmp_path / "alone" / "001.labels.png"
        ).read_bytes()
    (tmp_path / "paths.csv").write_text(f"image~room\n{file}~a, b\n")
    predict(
        root / "moved", [tmp_path / "paths.csv"], out, device="cpu",
        table_format=TableFormat(delimiter="~"),
    )  # fmt: skip
    assert (out / "paths.row1.labels.png").is_file()


def test_a_resumed_run_equals_an_uninterrupted_one(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random crops, flips and colours, drop path, BatchNorm, unfreezing and a worker."""
    segmentation_folder(tmp_path / "data" / "rooms", {"train": 9, "val": 3, "test": 3})
    class_list(tmp_path / "rooms.yaml")
    network = ", ".join(
        f"{key}: {value}" for key, value in SEGFORMER.items() if key != "num_labels"
    )
    overrides = (
        *OVERRIDES, f"data.class_list={tmp_path / 'rooms.yaml'}",
        f"paths.data_dir={tmp_path / 'data'}", "data.num_workers=1",
        f"model.backbone={{{network}, drop_path_rate: 0.2}}", "callbacks=unfreezing",
        "callbacks.unfreezing.schedule={0: null, 1: stages.3, 2: stages.1}", "trainer.max_epochs=3",
    )  # fmt: skip
    whole = train(*overrides, folder=tmp_path / "whole")
    assert whole.code == 0, whole.err
    started = Segmenter.on_train_epoch_start

    def fail(self: Segmenter) -> None:
        if self.current_epoch == 2:
            msg = "the power is off"
            raise RuntimeError(msg)
        started(self)

    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "on_train_epoch_start", fail)
        assert train(*overrides, folder=tmp_path / "parts").code == 1
    resumed = train(*overrides, "ckpt_path=last", folder=tmp_path / "parts")
    assert resumed.code == 0, resumed.err
    ours, theirs = (
        torch.load(RunFolder(tmp_path / name).last_checkpoint, weights_only=True)
        for name in ("parts", "whole")
    )
    assert identical(dict(ours["state_dict"]), dict(theirs["state_dict"]))
    assert identical(ours["optimizer_states"], theirs["optimizer_states"])
    for name in ("parts", "whole"):
        folder = RunFolder(tmp_path / name)
        metrics = [
            {k: v for k, v in row.items() if "second" not in k} for row in folder.read_history()
        ]
        results = (
            metrics,
            folder.read_json("metrics.json")["test"],
            pd.read_parquet(folder.predictions).to_dict(),
        )
        if name == "parts":
            first = results
    assert first == results
    assert metrics[0]["lr/features_epoch1"] == ""


def test_weights_are_tested_without_training(train: Train, tmp_path: Path) -> None:
    segmentation_folder(tmp_path / "data" / "rooms", {"train": 2, "val": 1, "test": 3})
    class_list(tmp_path / "rooms.yaml")
    torch.manual_seed(3)
    rest = {key: value for key, value in SEGFORMER.items() if key != "model_type"}
    model = AutoModelForSemanticSegmentation.from_config(AutoConfig.for_model("segformer", **rest))
    model.save_pretrained(tmp_path / "network")
    overrides = (
        *OVERRIDES, f"data.class_list={tmp_path / 'rooms.yaml'}",
        f"paths.data_dir={tmp_path / 'data'}", f"model.backbone={tmp_path / 'network'}",
    )  # fmt: skip
    ended = train(*overrides, "train=false")
    assert ended.code == 0, ended.err
    assert "best epoch" not in ended.out
    kept = torch.load(RunFolder(ended.folder).best_checkpoint, weights_only=True)["state_dict"]
    assert identical(
        kept["network.head.model.decode_head.classifier.weight"],
        model.decode_head.classifier.weight.data,
    )
    assert evaluate(ended.folder, None) == 0
    without = train(*overrides, "test=false", "trainer.max_epochs=1", folder=tmp_path / "run2")
    assert without.code == 0, without.err
    folder = RunFolder(without.folder)
    assert "test" not in folder.read_json("metrics.json")
    assert folder.read_json("metrics.json")["val"]["n"] == 1
    assert not folder.predictions.exists()
    assert "Curves" in folder.report.read_text()
    with pytest.raises(RunFolderError, match="has no test metrics: it ran with test=false"):
        evaluate(without.folder, None)
    assert "The test split was not evaluated" in folder.report.read_text()


def test_random_weights_are_not_tested(train: Train, tmp_path: Path) -> None:
    segmentation_folder(tmp_path / "data" / "rooms", {"train": 2, "val": 1, "test": 3})
    class_list(tmp_path / "rooms.yaml")
    overrides = (
        *OVERRIDES,
        f"data.class_list={tmp_path / 'rooms.yaml'}",
        f"paths.data_dir={tmp_path / 'data'}",
        "train=false",
    )
    network = ", ".join(
        f"{key}: {value}" for key, value in SEGFORMER.items() if key != "num_labels"
    )
    ended = train(*overrides, f"model.backbone={{{network}}}")
    assert ended.error.startswith(
        "error: train=false tests a network without training it, and all of it would have random weights; set"
    )
    rest = {
        key: value for key, value in SEGFORMER.items() if key not in ("model_type", "num_labels")
    }
    AutoModelForSemanticSegmentation.from_config(
        AutoConfig.for_model("segformer", **rest, num_labels=7)
    ).save_pretrained(tmp_path / "other")
    ended = train(*overrides, f"model.backbone={tmp_path / 'other'}", folder=tmp_path / "run2")
    assert re.match(
        r"error: train=false tests a network without training it, and decode_head\.classifier\.\w+, .* would have",
        ended.error,
    )
    ended = train("train=false", folder=tmp_path / "run3")
    assert ended.error.startswith(
        "error: train=false tests a network without training it, and the head would have random weights"
    )


def test_resuming_with_another_class_list_is_rejected(train: Train, tmp_path: Path) -> None:
    segmentation_folder(tmp_path / "data" / "rooms", {"train": 4, "val": 2, "test": 2})
    path = class_list(tmp_path / "rooms.yaml")
    network = ", ".join(
        f"{key}: {value}" for key, value in SEGFORMER.items() if key != "num_labels"
    )
    overrides = (
        *OVERRIDES, f"data.class_list={path}", f"paths.data_dir={tmp_path / 'data'}",
        f"model.backbone={{{network}}}",
    )  # fmt: skip
    assert train(*overrides, "trainer.max_epochs=1").code == 0
    text = path.read_text()
    path.write_text(text.replace("name: wall", "name: x").replace("name: floor", "name: wall"))
    ended = train(*overrides, "trainer.max_epochs=2", "ckpt_path=last")
    assert re.match(r"error: the train split is not the one that \S+ began with", ended.error)


def test_worst_median_and_best_test_images_are_stored(root: Path) -> None:
    folder = RunFolder(root / "moved")
    shown, table = pd.read_parquet(folder.test_images), pd.read_parquet(folder.predictions)
    ranked = table.sort_values(["iou", "index"])["index"].tolist()
    groups = {group: rows["index"].tolist() for group, rows in shown.groupby("group")}
    assert groups["worst"] == ranked[:2]
    assert groups["best"] == ranked[::-1][:2]
    assert groups["median"] == [ranked[2]]
    assert sorted(shown["index"]) == list(range(5))
    assert set(NAMES) >= set(folder.read_json("metrics.json")["test"]["absent"])
