"""Image datasets: folders, Parquet, the hub, splits, and a one-line error per bad input."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from datamodules.image import ImageDataModule
from datamodules.images.encoded_rows import EncodedRows
from datamodules.images.rows import EncodedImage
from datamodules.images.storage import Decoding, EncodedImages
from datamodules.reading.errors import DataError
from datamodules.reading.splits import stratified_split
from run_folders.run_folder import RunFolder
from tests.conftest import Train
from tests.images import (
    BAD_IMAGES,
    COLOURS,
    cifar_like,
    encoded,
    image_folder,
    picture,
    write_parquet,
)

CLASSES = list(COLOURS)
FOLDER = {"train": "train", "val": "val", "test": "test"}
COMMAND = (
    "data=image", "data.folder=colours", f"data.classes=[{','.join(CLASSES)}]", "data.num_classes=5", "data.size=16",
    "model=sample_image_classifier", "model.backbone.widths=[8,8]", "data.batch_size=8",
    "trainer.max_epochs=3",
)  # fmt: skip


def module(root: Path, **settings: object) -> ImageDataModule:
    values = {
        "folder": "colours",
        "files": FOLDER,
        "classes": CLASSES,
        "num_classes": 5,
        "data_dir": str(root),
        "size": 16,
    }
    return ImageDataModule(**{**values, **settings})  # type: ignore[arg-type]


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A data folder with an image folder of five classes."""
    image_folder(tmp_path / "data" / "colours", {"train": 9, "val": 3, "test": 4})
    return tmp_path / "data"


@pytest.mark.parametrize("in_memory", [True, False])
def test_training_on_an_image_folder_of_five_classes(
    in_memory: bool, train: Train, colours: Path
) -> None:
    ended = train(
        *COMMAND,
        f"paths.data_dir={colours}",
        f"data.in_memory={in_memory}",
        f"data.num_workers={0 if in_memory else 1}",
    )
    assert ended.code == 0, ended.err
    metrics = RunFolder(ended.folder).read_json("metrics.json")
    assert metrics["test"]["classes"] == CLASSES
    assert metrics["test"]["n"] == 20
    assert metrics["test"]["acc"] > 0.5
    table = pd.read_parquet(RunFolder(ended.folder).predictions)
    assert table.columns[-1] == "image"
    assert table["image"].tolist()[:4] == [
        "test/red/0.png",
        "test/red/1.jpg",
        "test/red/2.webp",
        "test/red/3.png",
    ]
    assert table["label"].tolist()[:4] == ["red"] * 4


def test_streaming_returns_the_same_pixels_as_memory(colours: Path) -> None:
    kept, streamed = module(colours), module(colours, in_memory=False, num_workers=1)
    kept.setup()
    streamed.setup()
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for ours, theirs in zip(getattr(kept, name)(), getattr(streamed, name)(), strict=True):
            assert ours["pixel_values"].dtype == torch.uint8
            assert all(
                torch.equal(ours[key], theirs[key]) for key in ("pixel_values", "labels", "index")
            )


def test_content_digest_covers_whole_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    contents = []
    for changed in (0, 1):
        # This pixel is in neither end of the file; the digest of an image covers only the ends.
        pixels[128, 128] ^= changed
        Image.fromarray(pixels).save(tmp_path / "a.bmp")
        assert (tmp_path / "a.bmp").stat().st_size > 2**17
        image = EncodedImage(0, tmp_path / "a.bmp", 0, "a.bmp", None)
        contents.append(
            EncodedImages(
                EncodedRows.gather([image])[0], Decoding(10**6, None), np.zeros((1, 32), np.uint8)
            ).content_digest()
        )
    assert contents[0] != contents[1]


def test_parquet_with_other_columns_and_class_names(tmp_path: Path, train: Train) -> None:
    for place, (split, count) in enumerate({"train": 40, "test": 10}.items()):
        names = [CLASSES[i % 5] for i in range(count)]
        table = {
            "photo": [
                encoded(picture(name, place * 100 + i, (16, 16))) for i, name in enumerate(names)
            ],
            "what": names,
        }
        (tmp_path / "data" / "colours").mkdir(parents=True, exist_ok=True)
        pd.DataFrame(table).to_parquet(tmp_path / "data" / "colours" / f"{split}.parquet")
    ended = train(
        *COMMAND, f"paths.data_dir={tmp_path / 'data'}", "data.files={train: train.parquet, val: null, test: test.parquet}",
        "data.image_column=photo", "data.label_column=what", "data.val_fraction=0.25", "data.size=null",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert RunFolder(ended.folder).read_json("plan.json")["samples"] == {
        "train": 30,
        "val": 10,
        "test": 10,
    }
    assert (
        pd.read_parquet(RunFolder(ended.folder).predictions)["image"].tolist()[1]
        == "test.parquet, row 2"
    )


def hub(monkeypatch: pytest.MonkeyPatch, labels: list[int]) -> None:
    import datasets

    def load_dataset(name: str, split: str) -> datasets.Dataset:
        assert name == "uoft-cs/cifar10"
        names = [
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
        features = datasets.Features(
            {"img": datasets.Image(), "label": datasets.ClassLabel(names=names)}
        )
        rows = {
            "img": [
                {"bytes": encoded(picture("red", i, (32, 32))), "path": None}
                for i in range(len(labels))
            ],
            "label": labels,
        }
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_hub_is_read_if_the_folder_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Train
) -> None:
    hub(monkeypatch, [i % 10 for i in range(40)])
    ended = train(
        "data=cifar10",
        f"paths.data_dir={tmp_path / 'nothing'}",
        "model=sample_image_classifier",
        "trainer.max_epochs=1",
    )
    assert ended.code == 0, ended.err
    table = pd.read_parquet(RunFolder(ended.folder).predictions)
    assert table["label"].tolist()[:3] == ["airplane", "automobile", "bird"]
    assert table["image"][0] == "uoft-cs/cifar10, test, row 1"


def test_a_column_that_the_hub_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Train
) -> None:
    hub(monkeypatch, [0])
    ended = train(
        "data=cifar10",
        f"paths.data_dir={tmp_path}",
        "model=sample_image_classifier",
        "data.image_column=photo",
    )
    assert (
        "uoft-cs/cifar10 on the hub has the columns img, label; set data.image_column"
        in ended.error
    )


def test_neither_folder_nor_hub_is_one_error(tmp_path: Path, train: Train) -> None:
    ended = train("data=cifar10", f"paths.data_dir={tmp_path}", "model=sample_image_classifier")
    assert ended.code == 1
    assert (
        f"no train.parquet, test.parquet in {tmp_path / 'cifar10'} nor on the hub as uoft-cs/cifar10"
        in ended.error
    )


def split_digest(train_rows: int | None, labels: list[int]) -> tuple[list[int], str]:
    rows = labels[:train_rows]
    first, second = stratified_split(rows, 0.1, seed=1)
    return [len(first), len(second)], hashlib.sha256(json.dumps(second).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("train_rows", "sizes"), [(None, [45_000, 5_000]), (5_000, [4_500, 500])])
def test_validation_split_is_the_same_everywhere(train_rows: int | None, sizes: list[int]) -> None:
    labels = [(i * 7919) % 10 for i in range(50_000)]
    found, hashed = split_digest(train_rows, labels)
    assert found == sizes
    assert hashed == PINNED[train_rows]


PINNED = {None: "e8f8148c5f1bf44c", 5_000: "a0d5d1f18dc0f1dd"}


def test_validation_is_a_stratified_part_of_train_and_test_is_complete(tmp_path: Path) -> None:
    cifar_like(tmp_path, train=100, test=30)
    classes = [str(k) for k in range(10)]
    names = [f"c{k}" for k in classes]
    settings = {
        "folder": "cifar10", "files": {"train": "train.parquet", "val": None, "test": "test.parquet"}, "classes": names,
        "num_classes": 10, "data_dir": str(tmp_path), "image_column": "img", "val_fraction": 0.2,
        "size": None,
    }  # fmt: skip
    data = ImageDataModule(**settings)  # type: ignore[arg-type]
    data.setup()
    assert sorted([*data.splits["train"].indices, *data.splits["val"].indices]) == list(range(100))
    assert sorted(data.splits["val"].labels) == [k for k in range(10) for _ in range(2)]
    assert data.splits["test"].indices.tolist() == list(range(30))
    few = ImageDataModule(**settings, train_rows=50)  # type: ignore[arg-type]
    few.setup()
    assert sorted([*few.splits["train"].indices, *few.splits["val"].indices]) == list(range(50))
    assert few.splits["test"].indices.tolist() == list(range(30))
    assert data.describe()["train"]["sha256"] != few.describe()["train"]["sha256"]
    data.setup("test")
    assert len(data.splits["val"]) == 20


def test_same_image_in_two_splits_is_reported(
    colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = encoded(picture("red", 7, (16, 16)))
    for split in ("train", "test"):
        write_parquet(
            colours / "colours" / f"{split}.parquet",
            [image, encoded(picture("blue", len(split), (16, 16)))] * 5,
            [0, 2] * 5,
        )
    data = module(
        colours,
        files={"train": "train.parquet", "val": None, "test": "test.parquet"},
        image_column="img",
        val_fraction=0.2,
    )
    data.setup()
    overlaps = data.describe()["overlaps"]
    assert {tuple(o["splits"]): (o["count"], o["what"]) for o in overlaps}["train", "test"] == (
        1,
        "images",
    )
    assert "1 image occurs in both train and test" in caplog.text


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_ends_the_run_with_a_one_line_error(
    name: str, in_memory: bool, train: Train, colours: Path
) -> None:
    content, reason = BAD_IMAGES[name]
    (colours / "colours" / "train" / "red" / name).write_bytes(content)
    ended = train(
        *COMMAND, f"paths.data_dir={colours}", f"data.in_memory={in_memory}", "data.check=true",
        "trainer.max_epochs=1",
    )  # fmt: skip
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert re.match(
        rf"error: train/red/{re.escape(name)}: ({reason}).*; fix the file, or leave such rows out with",
        ended.error,
    )
    assert len(ended.error.splitlines()) == 1
    status = RunFolder(ended.folder).read_json("status.json")
    assert status["state"] == "failed"
    assert name in status["error"]


def test_bad_images_are_left_out_counted_and_listed(train: Train, colours: Path) -> None:
    for name, (content, _) in BAD_IMAGES.items():
        (colours / "colours" / "train" / "red" / name).write_bytes(content)
    ended = train(
        *COMMAND, f"paths.data_dir={colours}", "data.on_bad_rows=skip", "trainer.max_epochs=1"
    )
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    assert folder.read_json("provenance.json")["data"]["train"] == {
        **folder.read_json("provenance.json")["data"]["train"], "rows": 45, "skipped_rows": len(BAD_IMAGES),
    }  # fmt: skip
    listed = pd.read_csv(folder.skipped_rows)
    assert sorted(listed["file"]) == sorted(f"train/red/{name}" for name in BAD_IMAGES)
    assert f"{len(BAD_IMAGES)} bad rows of train were left out" in folder.report.read_text()


def test_bad_rows_of_a_table_name_their_row(train: Train, tmp_path: Path) -> None:
    cifar_like(tmp_path, train=40, test=10)
    good = [encoded(picture("red", i, (32, 32))) for i in range(20)]
    path = tmp_path / "cifar10" / "train.parquet"
    overrides = ("data=cifar10", f"paths.data_dir={tmp_path}", "model=sample_image_classifier")
    write_parquet(path, good, [*range(10), *range(9), 10])
    assert train(*overrides).error.startswith(
        "error: train.parquet, row 20: label 10 is outside of 0..9; fix the file"
    )
    write_parquet(path, [*good[:4], b"", *good[5:]], [i % 10 for i in range(20)])
    assert train(*overrides, folder=tmp_path / "run2").error.startswith(
        "error: train.parquet, row 5: is empty (0 bytes); fix the file"
    )
    write_parquet(path, [*good[:4], None, *good[5:]], [i % 10 for i in range(20)])  # type: ignore[list-item]
    assert train(*overrides, folder=tmp_path / "run3").error.startswith(
        "error: train.parquet, row 5: column 'img' holds no image bytes; fix"
    )
    assert (
        "no column 'picture'; it has img, label; set data.text_column, image_column, label_column or group_column"
        in train(*overrides, "data.image_column=picture", folder=tmp_path / "run4").error
    )


def test_wrong_class_folders_are_reported(train: Train, colours: Path, tmp_path: Path) -> None:
    overrides = (*COMMAND, f"paths.data_dir={colours}")
    (colours / "colours" / "train" / "rde").mkdir()
    ended = train(*overrides)
    assert ended.error.endswith("train/rde: no class is called 'rde'; did you mean red?")
    (colours / "colours" / "train" / "rde").rmdir()
    for file in (colours / "colours" / "val" / "blue").iterdir():
        file.unlink()
    assert train(*overrides, folder=tmp_path / "run2").error.startswith(
        "error: val/blue: this class folder is empty; fix"
    )
    (colours / "colours" / "val" / "blue").rmdir()
    assert train(*overrides, folder=tmp_path / "run3").error.startswith(
        "error: val/blue: there is no folder for this class; fix"
    )
    assert (
        train(
            *overrides, "data.on_bad_rows=skip", "trainer.max_epochs=1", folder=tmp_path / "run4"
        ).code
        == 0
    )


def test_images_of_different_sizes_need_a_size(train: Train, colours: Path, tmp_path: Path) -> None:
    picture("red", 1, (30, 30)).save(colours / "colours" / "train" / "red" / "z.png")
    ended = train(*COMMAND, f"paths.data_dir={colours}", "data.size=null")
    assert (
        ended.error
        == "error: train/red/z.png is 30 x 30 pixels and train/red/0.png is 20 x 16; set data.size to resize all"
    )
    ended = train(
        *COMMAND,
        f"paths.data_dir={colours}",
        "data.size=null",
        "data.in_memory=false",
        folder=tmp_path / "run2",
    )
    assert "data.in_memory=false needs data.size" in ended.error


def test_images_that_do_not_fit_into_memory_are_reported(
    train: Train, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.images.storing.physical_memory", lambda: 50_000.0)
    ended = train(*COMMAND, f"paths.data_dir={colours}")
    assert ended.error.startswith(
        "error: 45 images of 16 x 16 pixels take 0.0 GiB, and this machine has 0.0; set data.in_memory=false"
    )


def test_train_rows_is_rejected_for_a_folder(train: Train, colours: Path) -> None:
    ended = train(*COMMAND, f"paths.data_dir={colours}", "data.train_rows=9")
    assert ended.error.startswith("error: data.train_rows=9 needs a table")


def test_a_class_without_training_samples_is_reported(
    colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in (colours / "colours" / "train" / "blue").iterdir():
        file.unlink()
    module(colours, on_bad_rows="skip").setup()
    assert "the train split has no sample of blue, so nothing is learnt about it" in caplog.text


def test_hidden_folders_are_ignored_and_stray_files_are_reported(colours: Path) -> None:
    hidden = colours / "colours" / "train" / "red" / ".ipynb_checkpoints"
    hidden.mkdir()
    picture("red", 1).save(hidden / "0-checkpoint.png")
    data = module(colours)
    data.setup()
    assert not any("ipynb" in name for name in data.splits["train"].encoded.files)
    picture("red", 1).save(colours / "colours" / "train" / "stray.png")
    with pytest.raises(
        DataError,
        match=r"^train/stray\.png: is not in a class folder, so its class is not known; fix",
    ):
        module(colours).setup()


@pytest.mark.parametrize("in_memory", [True, False])
def test_same_file_in_two_folders_is_reported_by_its_names(
    in_memory: bool, colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = colours / "colours" / "train" / "red" / "0.png"
    (colours / "colours" / "test" / "red" / "copy.png").write_bytes(source.read_bytes())
    data = module(colours, in_memory=in_memory, check=True)
    data.setup()
    assert data.describe()["overlaps"] == [
        {
            "splits": ["train", "test"],
            "count": 1,
            "what": "images",
            "examples": ["train/red/0.png = test/red/copy.png"],
        }
    ]
    before = data.describe()["train"]["sha256"]
    picture("red", 99).save(colours / "colours" / "train" / "red" / "0.png")
    changed = module(colours, in_memory=in_memory, check=True)
    changed.setup()
    assert changed.describe()["train"]["sha256"] != before


def test_hub_rows_without_a_label_are_bad_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Train
) -> None:
    hub(monkeypatch, [*range(10), -1])
    ended = train(
        "data=cifar10", f"paths.data_dir={tmp_path / 'nothing'}", "model=sample_image_classifier"
    )
    assert "uoft-cs/cifar10, train, row 11: label -1 is outside of 0..9" in ended.error


def test_network_that_cannot_read_the_images_is_reported_before_training(
    train: Train, colours: Path, tmp_path: Path
) -> None:
    ended = train(*COMMAND, f"paths.data_dir={colours}", "data.size=4")
    assert ended.error.startswith("error: the network cannot read images of 4 x 4 pixels (")
    assert ended.error.endswith("; set data.size or model.image_size")
    overrides = (
        "model=image_classifier",
        "model.backbone={architecture: vgg11, mlp_ratio: 0.01}",
        "model.image_size=16",
    )
    ended = train(*COMMAND[:5], *overrides, f"paths.data_dir={colours}", folder=tmp_path / "vgg")
    assert re.match(
        r"error: model.backbone: vgg11 cannot read 16 x 16 pixels \(.*\); set model.image_size",
        ended.error,
    )


def test_padding_wider_than_the_image_is_rejected(train: Train, colours: Path) -> None:
    ended = train(*COMMAND, f"paths.data_dir={colours}", "data.augmentation.crop_padding=16")
    assert (
        ended.error
        == "error: data.augmentation.crop_padding: received 16; choose less than 16, the images' shorter side in pixels"
    )


def test_mistyped_augmentation_is_rejected(train: Train, colours: Path) -> None:
    ended = train(
        *COMMAND,
        f"paths.data_dir={colours}",
        "+data.augmentation.flipp=true",
        "data.augmentation.rotation=200",
    )
    assert "data.augmentation.flipp" in ended.error
    assert "data.augmentation.rotation" in ended.error
    assert "received 200; 0 to 180 is needed" in ended.error


def test_a_file_that_becomes_unreadable_in_training_is_a_one_line_error(
    colours: Path, train: Train
) -> None:
    """Images are not checked before training, so a worker process finds the truncated file."""
    victim = colours / "colours" / "train" / "red" / "0.png"
    victim.write_bytes(victim.read_bytes()[:200])
    ended = train(
        *COMMAND, f"paths.data_dir={colours}", "data.in_memory=false", "data.num_workers=1"
    )
    assert ended.code == 1
    assert ended.error.startswith("error: train/red/0.png: ")
    assert "Traceback" not in ended.err
    assert len(ended.error.splitlines()) == 1


def test_sample_images_are_the_same_in_every_run_and_balanced(train: Train) -> None:
    from datamodules.image_samples import SAMPLE_CLASSES, SampleImagesDataModule

    def created() -> SampleImagesDataModule:
        data = SampleImagesDataModule(
            rows={"train": 30, "val": 20, "test": 10}, folder="", files={"train": "", "val": "", "test": ""},
            classes=list(SAMPLE_CLASSES), num_classes=10,
        )  # fmt: skip
        data.setup()
        return data

    first, second = created(), created()
    assert first.describe() == second.describe()
    assert first.describe()["overlaps"] == []
    assert sorted(first.splits["train"].labels) == [k for k in range(10) for _ in range(3)]
    assert first.splits["train"].pixels(0).shape == (3, 32, 32)
