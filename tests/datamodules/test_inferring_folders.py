"""Settings of image datasets that their folder decides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from datamodules.image import ImageDataModule
from datamodules.images.rows import EncodedImage
from datamodules.reading.errors import DataError
from run_folders.run_folder import RunFolder
from tests.conftest import Train
from tests.images import COLOURS, image_folder, picture

SMALL = (
    "data=image", "data.folder=birds", "model=sample_image_classifier",
    "model.backbone.widths=[8,8]", "data.size=16", "trainer.max_epochs=1",
)  # fmt: skip


def test_a_folder_is_enough_for_a_run(train: Train, tmp_path: Path) -> None:
    image_folder(tmp_path / "data" / "birds", {"train": 3, "valid": 1, "Test": 2})
    ended = train(*SMALL, f"paths.data_dir={tmp_path / 'data'}")
    assert ended.code == 0, ended.err
    data = OmegaConf.load(RunFolder(ended.folder).config).data
    assert data.files == {"train": "train", "val": "valid", "test": "Test"}
    assert data.classes == sorted(COLOURS)
    assert (data.num_classes, data.image_column, data.label_column) == (5, "image", "label")
    assert "data.classes" in ended.out
    assert "the folders in train" in ended.out
    assert RunFolder(ended.folder).read_json("metrics.json")["test"]["n"] == 10


def draw(root: Path, *names: str) -> None:
    """Write small images, each with its own pixels."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture("red", number).save(root / name)


def found_in(folder: Path, **settings: Any) -> dict[str, Any]:
    """What is found in a folder, by key."""
    findings = ImageDataModule.infer({"folder": str(folder), **settings})
    return {item.key: item.value for item in findings}


def files_of(found: dict[str, Any]) -> list[str | None]:
    return [found.get(f"files.{split}") for split in ("train", "val", "test")]


BOTH = ("hen/1.png", "hen/2.png", "owl/3.png", "owl/4.png")


@pytest.mark.parametrize(
    ("names", "files"),
    [
        ([f"{split}/{name}" for split in ("train", "val", "test") for name in BOTH], ["train", "val", "test"]),
        ([f"{split}/{name}" for split in ("Training", "VALID") for name in BOTH], ["Training", "VALID", None]),
        ([f"{split}_images/{name}" for split in ("train", "test") for name in BOTH], ["train_images", None, "test_images"]),
        (BOTH, [".", None, None]),
        ([f"birds/{name}" for name in BOTH], ["birds", None, None]),
        ([f"birds/{split}/{name}" for split in ("train", "dev") for name in BOTH], ["birds/train", "birds/dev", None]),
        ([f"train/{name}" for name in BOTH] + ["test/5.png"], ["train", None, None]),
        ([f"{name.replace('/', '/a/')}" for name in BOTH], [".", None, None]),
        ([*BOTH, "train/5.png", "train/6.png"], [".", None, None]),
    ],
)  # fmt: skip
def test_class_folders(names: Sequence[str], files: list[str | None], tmp_path: Path) -> None:
    draw(tmp_path / "birds", *names)
    (tmp_path / "birds" / "README.md").write_text("# Birds\n")
    (tmp_path / "birds" / ".ipynb_checkpoints").mkdir()
    found = found_in(tmp_path / "birds")
    assert files_of(found) == files
    assert found["classes"] == ["hen", "owl", *(["train"] if "train/5.png" in names else [])]
    assert found["num_classes"] == len(found["classes"])
    assert (found["image_column"], found["label_column"]) == ("image", "label")
    assert found.get("test_fraction") == (None if files[2] else 0.1)


def test_numbers_are_sorted_by_value(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{name}/{i}.png" for name in ("10", "9", "2") for i in range(2)))
    assert found_in(tmp_path)["classes"] == ["2", "9", "10"]


TABLE = "file,kind\n1.png,hen\n2.png,hen\n3.png,owl\n4.png,owl\n"


@pytest.mark.parametrize(
    ("images", "texts", "files", "columns"),
    [
        ("", {"birds.csv": TABLE}, ["birds.csv", None, None], ("file", "kind")),
        ("", {"train.csv": TABLE, "test.csv": TABLE}, ["train.csv", None, "test.csv"], ("file", "kind")),
        ("images", {"labels.csv": TABLE}, ["labels.csv", None, None], ("file", "kind")),
        ("train", {"train.csv": TABLE.replace("file", "id").replace(".png", "")}, ["train.csv", None, None], ("id", "kind")),
        ("images", {"meta/train.txt": "1.png hen\n2.png hen\n3.png owl\n4.png owl\n"}, ["meta/train.txt", None, None], ("image", "label")),
    ],
)  # fmt: skip
def test_tables_and_lists_are_read(
    images: str,
    texts: dict[str, str],
    files: list[str | None],
    columns: tuple[str, str],
    tmp_path: Path,
) -> None:
    draw(tmp_path / images, *(f"{i}.png" for i in (1, 2, 3, 4)))
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = found_in(tmp_path)
    assert files_of(found) == files
    assert (found["image_column"], found["label_column"]) == columns
    assert found["classes"] == ["hen", "owl"]
    data = ImageDataModule(str(tmp_path), size=8, test_fraction=None if files[2] else 0.5)
    assert data.class_names == ["hen", "owl"]
    data.splits_to_read = ("train", "test")
    data.setup()
    assert sum(map(len, data.splits.values())) == (8 if files[2] else 4)


def test_folders_of_splits_beside_a_table_are_no_classes(tmp_path: Path) -> None:
    """As in many competitions: images without a suffix in the table, and in one folder a split."""
    draw(tmp_path, *(f"{split}_images/{i}.png" for split in ("train", "test") for i in range(1, 5)))
    (tmp_path / "train.csv").write_text(TABLE.replace("file", "id_code").replace(".png", ""))
    (tmp_path / "test.csv").write_text("id_code\n1\n2\n")
    found = found_in(tmp_path)
    assert (found["classes"], files_of(found)) == (["hen", "owl"], ["train.csv", None, None])
    images = ImageDataModule(str(tmp_path)).reader.read(tmp_path / "train.csv", "train")
    places = [image.source for image in images if isinstance(image, EncodedImage)]
    assert places == [tmp_path / "train_images" / f"{i}.png" for i in range(1, 5)]


def test_a_list_of_classes_and_names(tmp_path: Path) -> None:
    """As in Food-101: the lists are in `meta`, and the names have no suffix."""
    draw(tmp_path / "images", *(name.replace("png", "jpg") for name in BOTH))
    (tmp_path / "meta").mkdir()
    for split in ("train", "test"):
        text = "".join(f"{name.removesuffix('.png')}\n" for name in BOTH)
        (tmp_path / "meta" / f"{split}.txt").write_text(text)
    (tmp_path / "meta" / "classes.txt").write_text("hen\nowl\n")
    found = found_in(tmp_path)
    assert files_of(found) == ["meta/train.txt", None, "meta/test.txt"]
    data = ImageDataModule(str(tmp_path), size=8)
    data.setup()
    assert data.class_names == ["hen", "owl"]
    assert data.reference("test", [0]) == ("image", ["hen/1.jpg"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.png", "2.png"], "birds: which class has each image"),
        (["hen/1.png", "hen/2.png"], "birds: which class has each image"),
        (["test/hen/1.png", "hen/2.png", "owl/3.png"], "birds has the folder test and none for train"),
        (["train/hen/1.png", "training/hen/2.png"], "birds: is train or training train"),
        ([f"{i}/a.png" for i in range(101)], r"has 101 different labels .* set data.num_classes=101"),
        ([f"{i}/a.png" for i in range(5)], r"has a different label for each of 5 samples"),
    ],
)  # fmt: skip
def test_questions(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / "birds" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "birds" / name).touch()
    with pytest.raises(DataError, match=message):
        found_in(tmp_path / "birds")


def test_the_same_test_images_for_every_seed(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{name}/{i}.png" for name in ("hen", "owl") for i in range(10)))
    tests = []
    for seed in (1, 2):
        data = ImageDataModule(str(tmp_path), size=8, seed=seed)
        data.setup()
        assert {name: len(split) for name, split in data.splits.items()} == {
            "train": 16, "val": 2, "test": 2
        }  # fmt: skip
        tests.append(data.splits["test"].indices.tolist())
    assert tests[0] == tests[1]


def test_a_column_that_names_no_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("id,label\n1,a\n2,a\n3,b\n4,b\n")
    with pytest.raises(
        DataError, match="column 'id' looks like the images, but there is no file 1"
    ):
        found_in(tmp_path)
