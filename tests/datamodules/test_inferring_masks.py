"""Settings of segmentation datasets that their folder decides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from datamodules.inferring.splits import split_of
from datamodules.masks.class_list import ClassList
from datamodules.masks.rows import SegmentationReader
from datamodules.reading.errors import DataError
from datamodules.segmentation import SegmentationDataModule
from engine.evaluation import evaluate
from engine.predict import predict
from run_folders.run_folder import RunFolder
from tests.conftest import Train
from tests.datamodules.test_segmentation import NETWORK
from tests.images import encoded, picture
from tests.masks import NAMES, class_list, image_of, label_bytes, mask

SMALL = (
    "data=segmentation", "data.folder=rooms", "data.size=32", f"model.backbone={NETWORK}",
    "trainer.max_epochs=1",
)  # fmt: skip


def test_a_folder_is_enough_for_a_run(train: Train, tmp_path: Path) -> None:
    """Binary masks without splits, in the working directory; then the run is used."""
    root = tmp_path / "rooms"
    for number in range(10):
        labels = (mask(number) > 4).astype(np.uint8)
        for folder, pixels in {"images": image_of(labels), "masks": labels * 255}.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    ended = train(*SMALL, f"paths.data_dir={tmp_path / 'data'}")
    assert ended.code == 0, ended.err
    data = OmegaConf.load(RunFolder(ended.folder).config).data
    assert (data.folder, data.images, data.annotations) == (str(root), "images", "masks")
    assert data.files == {"train": ".", "val": None, "test": None}
    assert (data.num_classes, data.test_fraction) == (2, 0.1)
    assert data.class_list.label_map == {0: 0, 255: 1}
    assert "2 classes: background, foreground" in ended.out
    assert evaluate(ended.folder, None) == 0
    out = predict(ended.folder, [root / "images"], tmp_path / "out", device="cpu")
    assert set(np.unique(np.asarray(Image.open(out / "0.labels.png")))) <= {0, 255}


def touch(root: Path, *names: str) -> None:
    """Create empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found_in(folder: Path, **settings: object) -> dict[str, object]:
    """What is found in a folder, by key."""
    given = {
        "folder": str(folder), "class_list": "sample_scenes", "num_classes": 5, **settings
    }  # fmt: skip
    return {item.key: item.value for item in SegmentationDataModule.infer(given)}


@pytest.mark.parametrize(
    ("image", "mask", "splits", "expected"),
    [
        ("images/{s}/{n}.jpg", "annotations/{s}/{n}.png", "train val test", ("images/{split}", "annotations/{split}", None, ".png")),
        ("images/{s}/{n}.jpg", "annotations/{s}/{n}.png", "training validation", ("images/{split}", "annotations/{split}", None, ".png")),
        ("img/{s}/{n}.tif", "labelTrainIds/{s}/{n}.tif", "Train Val", ("img/{split}", "labelTrainIds/{split}", None, ".tif")),
        ("{s}/images/{n}.png", "{s}/masks/{n}.png", "train valid test", ("{split}/images", "{split}/masks", None, ".png")),
        ("{s}/{n}.png", "{s}annot/{n}.png", "train val test", ("{split}", "{split}annot", None, ".png")),
        ("{s}/{n}.png", "{s}_labels/{n}_L.png", "train val test", ("{split}", "{split}_labels", None, "_L.png")),
        ("{s}/{n}.jpg", "{s}_masks/{n}_mask.gif", "train", ("{split}", "{split}_masks", None, "_mask.gif")),
        ("images_{s}/{n}.png", "masks_{s}/{n}.png", "train test", ("images_{split}", "masks_{split}", None, ".png")),
        ("leftImg8bit/{s}/ulm/ulm_{n}_leftImg8bit.png", "gtFine/{s}/ulm/ulm_{n}_gtFine_labelIds.png", "train val",
         ("leftImg8bit/{split}", "gtFine/{split}", "_leftImg8bit.png", "_gtFine_labelIds.png")),
        ("images/{n}.jpg", "masks/{n}.png", "x", ("images", "masks", None, ".png")),
        ("pets/images/{n}.jpg", "pets/annotations/trimaps/{n}.png", "x", ("pets/images", "pets/annotations/trimaps", None, ".png")),
        ("{n}.jpg", "{n}_mask.png", "x", (".", ".", ".jpg", "_mask.png")),
        ("{n}.jpg", "{n}.png", "x", (".", ".", ".jpg", ".png")),
        ("{s}/{n}_image.png", "{s}/{n}_mask.png", "train val", ("{split}", "{split}", "_image.png", "_mask.png")),
        ("{n}.jpg", "masks/{n}.png", "x", (".", "masks", ".jpg", ".png")),
        ("photos/{n}.jpg", "ground_truth/{n}.png", "x", ("photos", "ground_truth", None, ".png")),
        ("scans/{n}.jpg", "masks/{n}.png", "x", ("scans", "masks", None, ".png")),
    ],
)  # fmt: skip
def test_layouts(
    image: str, mask: str, splits: str, expected: tuple[str | None, ...], tmp_path: Path
) -> None:
    for split in splits.split():
        for name in ("a_1", "a_2", "b-3"):
            touch(tmp_path, *(pattern.format(s=split, n=name) for pattern in (image, mask)))
    touch(tmp_path, "README.md")
    found = found_in(tmp_path)
    keys = ("images", "annotations", "image_suffix", "annotation_suffix")
    assert tuple(found.get(key) for key in keys) == expected
    if "{split}" in str(found["images"]):
        names = {split_of(name): name for name in splits.split()}
        assert {s: found[f"files.{s}"] for s in ("train", "val", "test")} == {
            s: names.get(s) for s in ("train", "val", "test")
        }
    else:
        assert found["files.train"] == "."
    assert found.get("test_fraction") == (None if "test" in splits else 0.1)


def test_lists_of_names(tmp_path: Path) -> None:
    """As in PASCAL VOC: more images than masks, and lists for other tasks."""
    root = tmp_path / "VOC2012"
    for number in range(6):
        touch(root, f"JPEGImages/{number}.jpg", f"SegmentationObject/{number}.png")
        touch(root, *([f"SegmentationClass/{number}.png"] if number < 4 else []))
    lists = root / "ImageSets"
    for folder, names in {"Main": "0 1 4 5", "Segmentation": "0 1 2"}.items():
        (lists / folder).mkdir(parents=True)
        (lists / folder / "train.txt").write_text(names.replace(" ", "\n") + "\n")
    (lists / "Segmentation" / "val.txt").write_text("3\n")
    found = found_in(root)
    assert found["files.train"] == "ImageSets/Segmentation/train.txt"
    assert found["files.val"] == "ImageSets/Segmentation/val.txt"
    assert found["images"] == "JPEGImages"
    assert found["annotations"] == "SegmentationClass"
    assert found["image_suffix"] == ".jpg"


def test_lists_beside_a_folder_of_masks_whose_name_begins_as_that_of_the_images(
    tmp_path: Path,
) -> None:
    root = tmp_path / "cars"
    touch(root, *(f"img/{n}.jpg" for n in "012"), *(f"img_masks/{n}.png" for n in "01234"))
    for split, name in {"train": "0", "val": "1", "test": "2"}.items():
        (root / f"{split}.txt").write_text(name)
    found = found_in(root)
    files = [found[f"files.{split}"] for split in ("train", "val", "test")]
    assert files == ["train.txt", "val.txt", "test.txt"]


def write_masks(
    root: Path, values: Sequence[int], palette: Sequence[int] = (), **more: str
) -> Path:
    """Three images with masks of the values, without splits, and text files."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8)).save(root / "images" / f"{number}.png")
        mask = Image.fromarray(
            np.resize(np.array(values, np.uint8), (8, 8 if len(values) < 64 else 32))
        )
        if palette:
            mask.putpalette(palette)
        mask.save(root / "masks" / f"{number}.png")
    for name, text in more.items():
        (root / f"{name}.txt").write_text(text)
    return root


def classes_in(folder: Path, **settings: object) -> Any:
    """The class list that is found in a folder, and its names."""
    found = found_in(folder, **{"class_list": None, "num_classes": None, **settings})
    content: Any = found["class_list"]
    ClassList.from_plain(content, "test").mapped(settings.get("label_map"))  # type: ignore[arg-type]
    assert found["num_classes"] == len(content["classes"])
    return content, [entry["name"] for entry in content["classes"]]


@pytest.mark.parametrize(
    ("values", "names", "ignored", "label_map"),
    [
        ([0, 1, 2], ["class 0", "class 1", "class 2"], None, None),
        ([0, 1, 2, 255], ["class 0", "class 1", "class 2"], 255, None),
        ([0, 1], ["background", "foreground"], None, None),
        ([0, 255], ["background", "foreground"], None, {0: 0, 255: 1}),
        ([0, 1, 255], ["background", "foreground"], 255, None),
        ([1, 2, 3], ["class 1", "class 2", "class 3"], None, {1: 0, 2: 1, 3: 2}),
        ([0, 7, 19, 255], ["class 0", "class 7", "class 19"], None, {0: 0, 7: 1, 19: 2}),
    ],
)
def test_classes_of_values(
    values: list[int],
    names: list[str],
    ignored: int | None,
    label_map: dict[int, int] | None,
    tmp_path: Path,
) -> None:
    content, found = classes_in(write_masks(tmp_path / "rooms", values))
    assert found == names
    assert (content["ignore_value"], content.get("label_map")) == (ignored, label_map)
    assert content["zero_is_unlabelled"] is False
    assert len({tuple(entry["colour"]) for entry in content["classes"]}) == len(names)


def test_colours_of_a_palette(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "rooms", [0, 2], [0, 0, 0, 9, 9, 9, 250, 20, 30])
    content, names = classes_in(folder)
    assert names == ["class 0", "class 2"]
    assert [entry["colour"] for entry in content["classes"]] == [[0, 0, 0], [250, 20, 30]]


@pytest.mark.parametrize(
    ("values", "text", "names", "zero"),
    [
        ([0, 2], "sky\nroad\n\ntree\n", ["sky", "road", "tree"], False),
        ([1, 2], "sky\nroad", ["sky", "road"], True),
        ([0, 255], "wall\ndoor", ["wall", "door"], False),
        ([0, 1], "64 128 64\tAnimal\n192 0 128 Arch way", ["Animal", "Arch way"], False),
    ],
)
def test_names_in_a_file(
    values: list[int], text: str, names: list[str], zero: bool, tmp_path: Path
) -> None:
    content, found = classes_in(write_masks(tmp_path / "rooms", values, codes=text))
    assert (found, content["zero_is_unlabelled"]) == (names, zero)
    if "Animal" in names:
        assert content["classes"][0]["colour"] == [64, 128, 64]


def test_a_class_list_in_the_folder(tmp_path: Path) -> None:
    write_masks(tmp_path / "rooms", [0, 1])
    class_list(tmp_path / "rooms" / "class_list.yaml")
    assert classes_in(tmp_path / "rooms")[1] == NAMES


def test_classes_of_a_label_map(tmp_path: Path) -> None:
    content, names = classes_in(
        write_masks(tmp_path / "rooms", [0, 3, 9]), label_map={3: 0, 9: 1, 7: 1}
    )
    assert names == ["class 0", "class 1"]
    assert "label_map" not in content


@pytest.mark.parametrize(
    ("values", "texts", "message"),
    [
        (range(200), {}, r"the masks in rooms/masks have 200 different values \(0, 1, .*\): are they masks of classes\? set data.annotations"),
        ([3], {}, "the masks in rooms/masks have only the value 3; are they masks"),
        ([0, 1, 2], {"codes": "a\nb"}, "codes.txt names 2 classes, and the masks in rooms/masks have the values 0, 1, 2; is 0 a class, too"),
        ([0, 9], {"codes": "a\nb"}, "codes.txt names 2 classes, and .* have the values 0, 9; correct it"),
        ([0, 1], {"codes": "a\nb", "labels": "a\nb"}, "which of codes.txt and labels.txt has the classes"),
    ],
)  # fmt: skip
def test_questions_about_classes(
    values: Sequence[int], texts: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        classes_in(write_masks(tmp_path / "rooms", values, **texts))


def test_coloured_masks_are_refused(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "rooms", [0, 1])
    for path in (folder / "masks").iterdir():
        Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(DataError, match=r"0.png has RGB colours; a mask has one channel"):
        classes_in(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.txt"], "rooms has no image files"),
        (["images/a.jpg", "images/b.jpg"], r"rooms: where are the images of train and their masks\? Image files are in images \(2\); set data.images"),
        (["images/a.jpg", "masks/b.png"], r"where are the images .* images \(1\), masks \(1\)"),
        (["images/a.jpg", "masks/a.png", "labels/a.png"], r"which are the images and masks: images with masks \(\*.png\), images with labels|images with labels"),
        (["test/images/a.jpg", "test/masks/a.png"], "where are the images of train"),
    ],
)  # fmt: skip
def test_questions_about_places(files: list[str], message: str, tmp_path: Path) -> None:
    touch(tmp_path / "rooms", *files)
    with pytest.raises(DataError, match=message):
        found_in(tmp_path / "rooms")


def test_a_folder_in_the_working_directory_where_nothing_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_masks(tmp_path / "rooms", [0, 1]).parent)
    files = {"train": ".", "val": None, "test": None}
    places = {"images": "images", "annotations": "masks", "annotation_suffix": ".png"}
    class_list(tmp_path / "names.yaml")
    settings: Any = {"class_list": "names.yaml", "num_classes": len(NAMES), "files": files}
    data = SegmentationDataModule("rooms", data_dir="nowhere", **places, **settings)
    assert data.folder == str(tmp_path / "rooms")


def test_a_number_of_classes_that_the_masks_do_not_have(tmp_path: Path) -> None:
    write_masks(tmp_path / "rooms", [0, 1])
    message = "data.num_classes=5, but the class list has 2 classes"
    with pytest.raises(DataError, match=message):
        SegmentationDataModule(str(tmp_path / "rooms"), num_classes=5)


def test_a_datamodule_in_python_draws_val_and_test(tmp_path: Path) -> None:
    root = tmp_path / "rooms"
    for number in range(10):
        labels = mask(number)
        for folder, pixels in {"images": image_of(labels), "masks": labels}.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    tests = []
    for seed in (1, 2):
        data = SegmentationDataModule(str(root), size=32, seed=seed)
        data.setup()
        assert {name: len(split) for name, split in data.splits.items()} == {
            "train": 8, "val": 1, "test": 1
        }  # fmt: skip
        tests.append(data.splits["test"].indices)
    assert tests[0] == tests[1]
    assert data.class_names == [f"class {k}" for k in range(11)]


def test_new_images_beside_their_masks_are_paired(tmp_path: Path) -> None:
    """As in a dataset without folders for images and masks."""
    reader = SegmentationReader(".", ".", ".jpg", "_mask.png", "image", "annotation")
    assert reader.annotations_for(tmp_path) == tmp_path


def test_parquet_files(tmp_path: Path) -> None:
    rows = [
        {"image": encoded(picture("red", i)), "annotation": label_bytes(mask(i))} for i in range(3)
    ]
    for split in ("train", "test"):
        pd.DataFrame(rows).to_parquet(tmp_path / f"{split}.parquet")
    found = found_in(tmp_path, class_list=None, num_classes=None)
    assert found["files.train"] == "train.parquet"
    assert (found["files.val"], found["files.test"]) == (None, "test.parquet")
    assert found["num_classes"] == len(set(np.unique([mask(i) for i in range(3)])))
    found = found_in(tmp_path / "train.parquet", class_list=None, num_classes=None)
    assert (found["folder"], found["files.train"]) == (str(tmp_path), "train.parquet")
    assert (found["files.test"], found["test_fraction"]) == (None, 0.1)
    (tmp_path / "rooms.csv").touch()
    with pytest.raises(DataError, match=r"rooms.csv: images with masks are in folders, lists"):
        found_in(tmp_path / "rooms.csv")
