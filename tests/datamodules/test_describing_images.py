"""The facts about images and masks before training."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.describing.base import Request
from datamodules.describing.images import MAX_PIXELS, ImageDescription, opened_image
from datamodules.describing.kinds import KINDS, kind_of
from datamodules.describing.masks import MaskDescription
from datamodules.image import ImageDataModule
from datamodules.segmentation import SegmentationDataModule
from tests.images import image_folder, picture
from tests.masks import segmentation_folder


def described(path: Path, limit: int = 100, **given: Any) -> Any:
    request = Request(path, given, path.parent / "data", None, max_length=128, limit=limit)
    return KINDS[kind_of(path)](request)


def shown(description: Any, title: str) -> Any:
    return next(part for part in description.sections() if part.title.startswith(title))


def test_class_folders(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "colours", {"train": 3, "test": 2})
    red = root / "train" / "red"
    (root / "train" / "blue" / "copy.png").write_bytes((red / "0.png").read_bytes())
    (root / "test" / "red" / "copy.jpg").write_bytes((red / "0.png").read_bytes())
    (red / "notes.txt").write_text("hello")
    picture("red", 9, (50, 10)).convert("L").save(red / "grey.png")
    found = described(root)
    assert type(found) is ImageDescription
    train, test = found.facts
    assert (train.split.samples, train.split.bad_count, test.split.samples) == (17, 1, 11)
    assert str(train.split.bad[0]).startswith("train/red/notes.txt: is not a readable image")
    assert shown(found, "Sizes").rows[0] == ["train", "width", 20, 20, 20, 50]
    assert shown(found, "Sizes").rows[1] == ["train", "height", 10, 16, 16, 16]
    assert train.formats[".png", "PNG", "L"] == 1
    assert shown(found, "Formats").notes == ["1 file is called .jpg, with the content of PNG"]
    assert shown(found, "Copies").notes == [
        "in train and in test: 1 image, such as train/blue/copy.png = test/red/copy.jpg",
        "more than once in train: 1 image, such as train/blue/copy.png = train/red/0.png",
        "with two labels: 1 image, such as train/blue/copy.png and train/red/0.png",
    ]


def test_all_images_are_counted_and_some_are_opened(tmp_path: Path) -> None:
    found = described(image_folder(tmp_path / "colours", {"train": 6}), limit=10)
    (train,) = found.facts
    assert train.split.samples == 30
    assert dict(train.split.classes) == dict.fromkeys(range(5), 6)
    assert len(train.widths) == 10
    assert len(set(train.split.labels)) == 5  # evenly spread over the classes
    assert "opened: 10 of 30 of train images, evenly spread; --limit opens more" in (
        shown(found, "Files").notes
    )
    assert "only the images that were opened are compared" in shown(found, "Copies").notes


def test_images_that_training_rejects_have_its_reasons(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    Image.fromarray(np.full((8, 8, 4), 100, np.uint8)).save(path)
    assert "is transparent in part" in opened_image(path).fault
    assert opened_image(path).fault.endswith("; data.convert=true converts it")
    path.write_bytes(path.read_bytes()[:40])
    assert opened_image(path).fault
    assert "No such file" in opened_image(tmp_path / "none.png").fault


def test_masks(tmp_path: Path) -> None:
    root = segmentation_folder(tmp_path / "rooms", {"train": 6, "val": 2, "test": 2})
    masks = sorted((root / "annotations" / "train").iterdir())
    values = np.array(Image.open(masks[0]))
    Image.fromarray(values[:20]).save(masks[0])
    values = np.array(Image.open(masks[1]))
    values[0, 0] = 255
    Image.fromarray(values).save(masks[1])
    found = described(root)
    assert type(found) is MaskDescription
    train = found.facts[0]
    assert (train.split.samples, train.split.bad_count) == (5, 1)
    assert "is 40 x 20 pixels, and its image is 40 x 32" in str(train.split.bad[0])
    last = shown(found, "Mask values").rows[-1]
    assert (last[0], last[1], last[-3]) == (255, "unlabelled", 1)
    pixels = found.values["train"]
    assert pixels.sum() == 5 * 40 * 32
    assert shown(found, "Files").rows[0] == ["train", "images/train", 5, 1]


def test_values_outside_of_the_class_list_are_bad_pairs(tmp_path: Path) -> None:
    root = segmentation_folder(tmp_path / "rooms", {"train": 20, "val": 2})
    mask = sorted((root / "annotations" / "val").iterdir())[0]
    Image.fromarray(np.full((32, 40), 77, np.uint8)).save(mask)
    found = described(root)
    assert "has the value 77" in str(found.facts[1].split.bad[0])
    row = shown(found, "Mask values").rows[-1]
    assert row == [77, "not in the class list", "0.0 %", "50.0 %", 0, 1]


def test_a_folder_that_is_not_clear_shows_its_folders(tmp_path: Path) -> None:
    (tmp_path / "data" / "one").mkdir(parents=True)
    picture("red", 1).save(tmp_path / "data" / "one" / "a.png")
    found = described(tmp_path / "data")
    assert "?" in found.question
    (folders,) = found.sections()
    assert folders.rows == [["one", ".png", 1]]


def test_inference_is_that_of_training(tmp_path: Path) -> None:
    """The descriptions name the arguments that inference reads without importing datamodules."""
    root = image_folder(tmp_path / "colours", {"train": 2, "test": 1})
    place = {"folder": str(root), "data_dir": "data"}
    assert described(root).findings == ImageDataModule.infer(place)
    root = segmentation_folder(tmp_path / "rooms", {"train": 2, "val": 1})
    place["folder"] = str(root)
    assert described(root).findings == SegmentationDataModule.infer(place)
    limit = inspect.signature(ImageDataModule).parameters["max_pixels"].default
    assert limit == MAX_PIXELS
