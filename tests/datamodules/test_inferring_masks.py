"""Settings of segmentation datasets that their folder decides."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from datamodules.inferring.splits import split_of
from datamodules.segmentation import SegmentationDataModule
from run_folders.run_folder import RunFolder
from tests.conftest import Train
from tests.datamodules.test_segmentation import NETWORK
from tests.masks import segmentation_folder

SMALL = (
    "data=segmentation", "data.folder=rooms", "data.size=32", f"model.backbone={NETWORK}",
    "trainer.max_epochs=1",
)  # fmt: skip


def test_a_folder_is_enough_for_a_run(train: Train, tmp_path: Path) -> None:
    segmentation_folder(tmp_path / "data" / "rooms", {"train": 6, "val": 2, "test": 2})
    ended = train(*SMALL, f"paths.data_dir={tmp_path / 'data'}")
    assert ended.code == 0, ended.err
    data = OmegaConf.load(RunFolder(ended.folder).config).data
    assert (data.images, data.annotations) == ("images/{split}", "annotations/{split}")
    assert data.num_classes == len(data.class_list.classes) == 11
    assert "11 classes: class 0" in ended.out


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
        ("{n}.jpg", "masks/{n}.png", "x", (".", "masks", None, ".png")),
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
