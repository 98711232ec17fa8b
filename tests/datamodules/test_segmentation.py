"""Segmentation datasets: folders, Parquet, the hub, splits, and a one-line error per bad input."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from datamodules.masks.decoding import decode_mask
from datamodules.reading.errors import DataError
from datamodules.segmentation import SegmentationDataModule
from engine.evaluation import evaluate
from engine.predict import predict
from lightning_modules.segmenter import Segmenter
from run_folders.run_folder import RunFolder
from tests.conftest import Train
from tests.images import BAD_IMAGES, encoded
from tests.masks import (
    NAMES,
    class_list,
    image_of,
    label_bytes,
    mask,
    segmentation_folder,
    shallow_png,
    write_pair,
)

FOLDERS = {"train": "train", "val": "val", "test": "test"}
NETWORK = "{model_type: segformer, hidden_sizes: [8, 8, 16, 16], depths: [1, 1, 1, 1], num_attention_heads: [1, 1, 2, 2], decoder_hidden_size: 16}"
COMMAND = (
    "data=segmentation", "data.folder=rooms", "data.num_classes=11", "data.size=32", "data.batch_size=4", "model=segmenter",
    f"model.backbone={NETWORK}", "model.lr=1e-2", "model.backbone_lr=1e-2", "monitor=val/miou", "trainer.max_epochs=1",
)  # fmt: skip


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder with pairs of eleven classes."""
    segmentation_folder(tmp_path / "data" / "rooms", {"train": 12, "val": 4, "test": 5})
    class_list(tmp_path / "rooms.yaml")
    return tmp_path / "data"


def module(root: Path, **settings: object) -> SegmentationDataModule:
    values = {
        "folder": "rooms", "files": FOLDERS, "class_list": str(root.parent / "rooms.yaml"), "num_classes": 11,
        "data_dir": str(root), "size": 32, "batch_size": 4, "eval_batch_size": 3,
    }  # fmt: skip
    return SegmentationDataModule(**{**values, **settings})  # type: ignore[arg-type]


def command(root: Path, *overrides: str) -> tuple[str, ...]:
    return (
        *COMMAND,
        f"data.class_list={root.parent / 'rooms.yaml'}",
        f"paths.data_dir={root}",
        *overrides,
    )


def test_a_second_dataset_needs_configuration_only(train: Train, data_dir: Path) -> None:
    ended = train(
        *command(
            data_dir, "trainer.max_epochs=12", "data.augmentation.flip=true", "data.num_workers=1"
        )
    )
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    test = folder.read_json("metrics.json")["test"]
    assert test["classes"] == NAMES
    assert (test["n"], test["pixels"], test["unlabelled_pixels"]) == (5, 5 * 32 * 32, 0)
    assert test["miou"] > 0.05
    assert test["miou"] == pytest.approx(
        np.mean([c["iou"] for c in test["per_class"].values() if c["iou"] is not None])
    )
    table = pd.read_parquet(folder.predictions)
    assert table["image"].tolist() == [f"images/test/{i:03}.jpg" for i in range(5)]
    assert list(table) == ["index", "iou", "pixel_acc", "image"]
    facts = folder.read_json("provenance.json")["data"]
    assert [facts[split]["rows"] for split in FOLDERS] == [12, 4, 5]


def test_batches_are_uint8(data_dir: Path) -> None:
    data = module(data_dir)
    data.setup()
    batch = next(iter(data.val_dataloader()))
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert batch["labels"].shape == (3, 32, 32)
    assert (batch["pixel_values"].dtype, batch["labels"].dtype) == (torch.uint8, torch.uint8)
    assert batch["sizes"].tolist() == [[32, 32]] * 3
    expected = Image.fromarray(mask(100)).resize((32, 32), Image.Resampling.NEAREST)
    assert (batch["labels"][0].numpy() == np.asarray(expected)).all()
    # In training, masks are resized to `size`.
    assert all(one["labels"].shape[-2:] == (32, 32) for one in data.train_dataloader())


def test_native_evaluation_keeps_masks_at_their_own_size(data_dir: Path) -> None:
    write_pair(data_dir / "rooms", "test", "zzz", mask(9, (25, 60)))
    data = module(data_dir, native_evaluation=True, eval_batch_size=6)
    data.setup()
    batch = next(iter(data.test_dataloader()))
    assert batch["pixel_values"].shape[-2:] == (32, 32)
    assert batch["labels"].shape[-2:] == (60, 40)
    assert batch["sizes"].tolist() == [[32, 40]] * 5 + [[60, 25]]
    assert (batch["labels"][5, :60, :25].numpy() == mask(9, (25, 60))).all()
    assert (batch["labels"][5, :, 25:] == 255).all()
    assert all(one["labels"].shape[-2:] == (32, 32) for one in data.train_dataloader())


def test_native_evaluation_through_the_entry_point(train: Train, data_dir: Path) -> None:
    write_pair(data_dir / "rooms", "test", "zzz", mask(9, (25, 60)))
    ended = train(*command(data_dir, "data.native_evaluation=true", "data.eval_batch_size=4"))
    assert ended.code == 0, ended.err
    test = RunFolder(ended.folder).read_json("metrics.json")["test"]
    assert (test["pixels"], test["unlabelled_pixels"]) == (
        5 * 40 * 32 + 25 * 60,
        0,
    )  # padding counts as neither


def test_val_is_a_part_of_train_that_depends_on_the_seed(data_dir: Path) -> None:
    split = {**FOLDERS, "val": None}
    parts = []
    for seed in (1, 1, 2):
        data = module(data_dir, files=split, val_fraction=0.25, seed=seed)
        data.setup()
        data.setup("test")
        assert (len(data.splits["train"]), len(data.splits["val"]), len(data.splits["test"])) == (
            9,
            3,
            5,
        )
        assert sorted(data.splits["train"].indices + data.splits["val"].indices) == list(range(12))
        parts.append(data.splits["val"].indices)
    assert parts[0] == parts[1] != parts[2]


def test_workers_and_a_resumed_run_return_the_same_pairs(data_dir: Path) -> None:
    changes = {"scale": [0.5, 2.0], "largest_share": 0.75, "flip": True, "photometric": True}

    def epochs(workers: int, first: int, last: int) -> dict[tuple[int, int], torch.Tensor]:
        """Return (epoch, row) -> image."""
        data = module(data_dir, augmentation=changes, num_workers=workers)
        data.start_epoch = first
        data.setup()
        loader, seen = data.train_dataloader(), {}
        for epoch in range(first, last):
            loader.batch_sampler.sampler.set_epoch(epoch)  # type: ignore[union-attr]
            for batch in loader:
                seen |= {
                    (epoch, row): image
                    for row, image in zip(
                        batch["index"].tolist(), batch["pixel_values"], strict=True
                    )
                }
        return seen

    whole, by_workers, resumed = epochs(0, 0, 3), epochs(2, 0, 3), epochs(2, 1, 3)
    assert list(whole) == list(by_workers)  # the order too
    assert all(torch.equal(image, by_workers[key]) for key, image in whole.items())
    assert list(whole)[12:] == list(resumed)
    assert all(torch.equal(image, whole[key]) for key, image in resumed.items())
    assert not any(torch.equal(whole[0, row], whole[1, row]) for row in range(12))


def test_zero_is_unlabelled_if_the_list_sets_it(tmp_path: Path) -> None:
    segmentation_folder(tmp_path / "data" / "rooms", {"train": 4, "val": 2, "test": 2}, shift=1)
    path = tmp_path / "data" / "rooms" / "annotations" / "val" / "000.png"
    values = np.array(Image.open(path))
    values[:7] = 0
    Image.fromarray(values).save(path)
    class_list(tmp_path / "rooms.yaml", zero_is_unlabelled=True, ignore_value=None)
    data = module(tmp_path / "data")
    data.setup()
    image, labels = data.pairs("val", [0])[0]
    assert image.shape == (32, 40, 3)
    assert (labels[:7] == 255).all()
    assert (labels[7:] == mask(100)[7:]).all()


def test_parquet_and_other_columns(train: Train, tmp_path: Path) -> None:
    (tmp_path / "data" / "rooms").mkdir(parents=True)
    for place, (split, count) in enumerate({"train": 10, "test": 4}.items()):
        masks = [mask(100 * place + i) for i in range(count)]
        table = {
            "photo": [encoded(Image.fromarray(image_of(m)), "JPEG") for m in masks],
            "truth": [label_bytes(m) for m in masks],
        }
        pd.DataFrame(table).to_parquet(tmp_path / "data" / "rooms" / f"{split}.parquet")
    class_list(tmp_path / "rooms.yaml")
    overrides = command(
        tmp_path / "data", "data.files={train: train.parquet, val: null, test: test.parquet}", "data.image_column=photo",
        "data.annotation_column=truth", "data.val_fraction=0.2",
    )  # fmt: skip
    ended = train(*overrides)
    assert ended.code == 0, ended.err
    assert RunFolder(ended.folder).read_json("plan.json")["samples"] == {
        "train": 8,
        "val": 2,
        "test": 4,
    }
    assert (
        pd.read_parquet(RunFolder(ended.folder).predictions)["image"].tolist()[1]
        == "test.parquet, row 2"
    )


def bytes_of(values: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    image = Image.fromarray(values)
    buffer = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(buffer, kind)
    return buffer.getvalue()


GOOD = mask(1)
# Case -> file, new content (None deletes the file), start of the error message.
BAD_PAIRS: dict[str, tuple[str, bytes | None, str]] = {
    "another size": (
        "annotations/train/003.png", bytes_of(GOOD[:20]),
        "annotations/train/003.png: is 40 x 20 pixels, and its image is 40 x 32; fix the file",
    ),
    "a value outside the list": (
        "annotations/train/003.png", bytes_of(np.where(np.arange(40) < 3, np.uint8(77), GOOD)),
        "annotations/train/003.png: has the value 77 in 96 pixels, which is not in the class list; known are 0 to 10, and 255 for unlabelled",
    ),
    "no mask": ("annotations/train/003.png", None, "images/train/003.jpg: has no mask: there is no annotations/train/003.png; fix"),
    "no image": ("images/train/003.jpg", None, "annotations/train/003.png: is a mask without an image in images/train; fix"),
    "colours": (
        "annotations/train/003.png", bytes_of(image_of(GOOD)),
        "annotations/train/003.png: has RGB colours; a mask has one channel, whose values stand for classes; save it as PNG with a palette or in grey; fix",
    ),
    "a jpeg": (
        "annotations/train/003.png", bytes_of(GOOD, "JPEG"),
        "annotations/train/003.png: is a JPEG, whose compression changes the values of a mask; save it as PNG; fix",
    ),
    "sixteen bits": (
        "annotations/train/003.png", bytes_of(GOOD.astype(np.uint16)),
        "annotations/train/003.png: has 16 bits a channel or more; save it with 8; fix",
    ),
    "half a mask": (
        "annotations/train/003.png", bytes_of(np.random.default_rng(0).integers(0, 11, (32, 40)).astype(np.uint8))[:150],
        "annotations/train/003.png: is truncated: the file ends before the picture does; fix",
    ),
    "an empty mask": ("annotations/train/003.png", b"", "annotations/train/003.png: is empty (0 bytes); fix"),
    "text": ("annotations/train/003.png", b"wall wall floor", "annotations/train/003.png: is not a readable image"),
    "a bad image": ("images/train/003.jpg", BAD_IMAGES["truncated.jpg"][0], "images/train/003.jpg: is truncated"),
    "a stray file": ("images/train/notes.txt", b"x", "images/train/notes.txt: has no mask: there is no annotations/train/notes.png; fix"),
    "two images of a name": (
        "images/train/003.png", bytes_of(image_of(GOOD)),
        "images/train/003.png: has the same name as images/train/003.jpg, whose mask is annotations/train/003.png; rename one",
    ),
}  # fmt: skip


def spoil(data_dir: Path, what: str) -> str:
    place, content, message = BAD_PAIRS[what]
    path = data_dir / "rooms" / place
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return message


@pytest.mark.parametrize("what", BAD_PAIRS)
def test_a_bad_pair_ends_the_run_with_a_one_line_error(
    what: str, train: Train, data_dir: Path
) -> None:
    message = spoil(data_dir, what)
    ended = train(*command(data_dir))
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert ended.error.startswith(f"error: {message}"), ended.error
    assert len(ended.error.splitlines()) == 1
    assert RunFolder(ended.folder).read_json("status.json")["state"] == "failed"


def test_bad_pairs_are_left_out_counted_and_listed(train: Train, data_dir: Path) -> None:
    spoil(data_dir, "a value outside the list")
    (data_dir / "rooms" / "annotations" / "train" / "005.png").unlink()
    ended = train(*command(data_dir, "data.on_bad_rows=skip"))
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    assert folder.read_json("provenance.json")["data"]["train"]["rows"] == 10
    assert folder.read_json("provenance.json")["data"]["train"]["skipped_rows"] == 2
    assert sorted(pd.read_csv(folder.skipped_rows)["file"]) == [
        "annotations/train/003.png",
        "images/train/005.jpg",
    ]


def test_bad_rows_of_a_table_name_their_row(tmp_path: Path) -> None:
    (tmp_path / "data" / "rooms").mkdir(parents=True)
    class_list(tmp_path / "rooms.yaml")
    image, truth = encoded(Image.fromarray(image_of(GOOD)), "JPEG"), label_bytes(GOOD)

    def error(images: list[bytes | None], truths: list[bytes | None]) -> str:
        table = pd.DataFrame({"image": images, "annotation": truths})
        for split in ("train", "test"):
            table.to_parquet(tmp_path / "data" / "rooms" / f"{split}.parquet")
        files = {"train": "train.parquet", "val": None, "test": "test.parquet"}
        with pytest.raises(DataError) as caught:
            module(tmp_path / "data", files=files, on_bad_rows="error").setup()
        return str(caught.value).splitlines()[1].strip()

    assert (
        error([image, None], [truth, truth])
        == "train.parquet, row 2: column 'image' holds no image bytes"
    )
    assert (
        error([image, image], [None, truth])
        == "train.parquet, row 1: column 'annotation' holds no image bytes"
    )
    assert error([image, image], [truth, label_bytes(GOOD[:9])]) == (
        "train.parquet, row 2: the mask is 40 x 9 pixels, and its image is 40 x 32"
    )


def test_a_mask_that_becomes_bad_in_training_ends_the_run_with_a_one_line_error(
    train: Train, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup: Callable[..., None] = SegmentationDataModule.setup

    def spoiled(self: SegmentationDataModule, stage: str | None = None) -> None:
        setup(self, stage)
        spoil(data_dir, "a value outside the list")

    monkeypatch.setattr(SegmentationDataModule, "setup", spoiled)
    ended = train(*command(data_dir, "data.num_workers=1"))
    assert ended.code == 1
    assert ended.error.startswith(
        "error: images/train/003.jpg or its mask: has the value 77 in 96 pixels"
    )
    assert "ckpt_path=last" in ended.error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.num_classes=12",), r"data.num_classes=12, but the class list .*rooms.yaml has 11 classes"),
        (("data.class_list=scene_parse",), r"data.class_list=scene_parse: no such class list; did you mean scene_parse_150\?"),
        (("data.annotations='masks/{split}'",), r"data.annotations=masks/\{split\}: not found in \S+rooms; image files are in annotations/test \(5\)"),
        (("data.files.train=training",), r"\S+rooms: where are the images of data.files.train=training and their masks\? Image files are in"),
        (("data.folder=halls",), r"no folder 'halls' in \S+data nor in \S+; put it there, give its path in data.folder, or name"),
        (("data.augmentation.scale=[2.0,0.5]",), r"data.augmentation.scale: received \[2.0, 0.5\]; the lowest and the highest"),
        (("data.augmentation.scale=[0.5]",), r"data.augmentation.scale: received \[0.5\]; the lowest and the highest"),
        (("data.augmentation.zoom=2",), r"unknown key 'data.augmentation.zoom' on the command line; did you mean"),
        (("data.augmentation.largest_share=75",), r"1 fault in the config.*\n  data.augmentation.largest_share .*0.01 to 1 is needed"),
        (("monitor=val/acc",), r"1 fault in the config.*\n  monitor .*by one of val/miou, val/pixel_acc, val/class_acc, val/fw_iou, val/loss"),
        (("train=false", "test=false"), r"1 fault in the config.*\n  test .*train=false too; nothing would be done"),
        (("train=false", "ckpt_path=last"), r"ckpt_path=last: .* has no checkpoint to resume from"),
    ],
)  # fmt: skip
def test_wrong_settings_are_reported(
    overrides: tuple[str, ...], message: str, train: Train, data_dir: Path
) -> None:
    ended = train(*command(data_dir, *overrides))
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert re.match(f"error: {message}", ended.error), ended.error


def test_a_network_that_cannot_read_the_size_is_reported_before_training(
    train: Train, data_dir: Path
) -> None:
    beit = "{model_type: beit, image_size: 64, hidden_size: 16, num_attention_heads: 2, num_hidden_layers: 4, intermediate_size: 16, out_indices: [1,2,3,4]}"
    overrides = [
        override
        for override in command(data_dir)
        if not override.startswith(("model.backbone=", "data.size="))
    ]
    ended = train(*overrides, f"model.backbone={beit}", "data.size=30")
    assert ended.error.startswith("error: the network cannot read images of 30 x 30 pixels"), (
        ended.error
    )


@pytest.mark.parametrize(("depth", "classes"), [(2, 4), (4, 11)])
def test_masks_with_few_bits_are_read_as_stored(depth: int, classes: int) -> None:
    values = mask(3, (37, 20), classes)
    content = shallow_png(values, depth)
    assert (
        np.asarray(Image.open(io.BytesIO(content))) != values
    ).any()  # Pillow scales them to 0..255
    assert (decode_mask(content, 10_000)[0] == values).all()
    palette = Image.fromarray(values, "P")
    palette.putpalette([k for k in range(16) for _ in range(3)])
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", bits=depth)
    assert (decode_mask(buffer.getvalue(), 10_000)[0] == values).all()
    assert (decode_mask(bytes_of(values % 2 > 0), 10_000)[0] == values % 2).all()  # one bit


def move_pairs(
    data_dir: Path, images: str, annotations: str, ending: str = ".jpg", suffix: str = ".png"
) -> None:
    """Move the pairs into another layout."""
    for split in FOLDERS:
        for kind, pattern, old, new in (
            ("images", images, ".jpg", ending),
            ("annotations", annotations, ".png", suffix),
        ):
            target = data_dir / "rooms" / pattern.format(split=split)
            target.mkdir(parents=True, exist_ok=True)
            for file in sorted((data_dir / "rooms" / kind / split).iterdir()):
                file.rename(target / file.name.replace(old, new))


@pytest.mark.parametrize(
    ("images", "annotations", "ending", "suffix"),
    [
        ("{split}", "{split}annot", ".jpg", ".png"),
        ("{split}/photos", "{split}/masks", ".jpg", ".png"),
        ("left/{split}", "fine/{split}", "_left.jpg", "_fine_ids.png"),
        ("both/{split}", "both/{split}", "_left.jpg", "_ids.png"),
    ],
)
def test_other_layouts_need_configuration_only(
    images: str, annotations: str, ending: str, suffix: str, data_dir: Path
) -> None:
    plain = module(data_dir)
    plain.setup()
    expected = plain.pairs("test", [3])[0]
    move_pairs(data_dir, images, annotations, ending, suffix)
    more = {} if ending == ".jpg" else {"image_suffix": ending}
    data = module(
        data_dir, images=images, annotations=annotations, annotation_suffix=suffix, **more
    )
    data.setup()
    assert [len(data.splits[split]) for split in FOLDERS] == [12, 4, 5]
    assert all((a == b).all() for a, b in zip(data.pairs("test", [3])[0], expected, strict=True))
    folder = data_dir / "rooms" / images.format(split="val")
    mask_folder = data_dir / "rooms" / annotations.format(split="val")
    assert data.reader.annotations_for(folder) == mask_folder


@pytest.mark.parametrize("image_suffix", [None, ".tif", ".TIF"])
def test_masks_beside_their_images_are_found_by_their_suffix(
    image_suffix: str | None, data_dir: Path
) -> None:
    """`a.tif` has the mask `a_mask.tif` in the same folder."""
    plain = module(data_dir)
    plain.setup()
    for split in FOLDERS:
        folder = data_dir / "rooms" / "both" / split
        folder.mkdir(parents=True)
        for file in sorted((data_dir / "rooms" / "images" / split).iterdir()):
            Image.open(file).save(folder / f"{file.stem}.tif")
            truth = data_dir / "rooms" / "annotations" / split / f"{file.stem}.png"
            Image.open(truth).save(folder / f"{file.stem}_MASK.tif")
    both = {"images": "both/{split}", "annotations": "both/{split}", "image_suffix": image_suffix}
    data = module(data_dir, **both, annotation_suffix="_mask.tif")
    data.setup()
    assert [len(data.splits[split]) for split in FOLDERS] == [12, 4, 5]
    for ours, theirs in zip(data.pairs("test", [3])[0], plain.pairs("test", [3])[0], strict=True):
        assert np.array_equal(ours, theirs)
    (data_dir / "rooms" / "both" / "train" / "007_MASK.tif").unlink()
    (data_dir / "rooms" / "both" / "train" / "notes.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        module(data_dir, **both, annotation_suffix="_mask.tif").setup()
    assert "both/train/007.tif: has no mask: there is no both/train/007_mask.tif" in str(
        caught.value
    )
    stray = "both/train/notes.txt: has no mask: there is no both/train/notes_mask.tif"
    assert (stray in str(caught.value)) == (image_suffix is None)


@pytest.mark.parametrize("kinds", [("images", "annotations"), ("annotations", "images")])
def test_masks_of_images_with_names_in_another_normal_form_are_found(
    kinds: tuple[str, str], data_dir: Path
) -> None:
    for kind, name in zip(kinds, ("a\u0301", "\xe1"), strict=True):
        for file in (data_dir / "rooms" / kind / "test").glob("000.*"):
            file.rename(file.with_stem(name))
    data = module(data_dir)
    data.setup()
    assert len(data.splits["test"]) == 5


def test_masks_in_a_folder_of_the_images_are_no_images(data_dir: Path) -> None:
    move_pairs(data_dir, "{split}", "{split}/masks")
    data = module(data_dir, images="{split}", annotations="{split}/masks")
    data.setup()
    assert [len(data.splits[split]) for split in FOLDERS] == [12, 4, 5]


def test_files_that_a_suffix_excludes_are_counted(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data_dir / "rooms" / "images" / "val" / "readme.md").write_text("x")
    (data_dir / "rooms" / "annotations" / "val" / "000_colour.gif").write_text("x")
    with caplog.at_level("INFO"):
        module(data_dir, image_suffix=".jpg").setup()
    assert (
        "images/val: 1 files do not end with data.image_suffix=.jpg and are not used (readme.md)"
        in caplog.text
    )
    assert "data.annotation_suffix=.png and are not used (000_colour.gif)" in caplog.text


def test_links_and_files_of_systems_are_followed_and_counted(
    data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in ("images", "annotations"):
        folder = data_dir / "rooms" / kind / "train"
        folder.rename(tmp_path / kind)
        folder.mkdir()
        (folder / "part").symlink_to(tmp_path / kind)
        (folder / "@eaDir").mkdir()
        (folder / "@eaDir" / "000.png").write_bytes(b"x")
    with caplog.at_level("INFO"):
        data = module(data_dir)
        data.setup()
    assert len(data.splits["train"]) == 12
    assert caplog.text.count("train: passed over 1 file of operating systems") == 2


def test_two_masks_of_a_name_are_named(data_dir: Path) -> None:
    folder = data_dir / "rooms" / "annotations" / "train"
    (folder / "003.PNG").write_bytes((folder / "003.png").read_bytes())
    with pytest.raises(
        DataError, match=r"annotations/train/003\.png: is a mask of the same name as 003\.PNG; rem"
    ):
        module(data_dir).setup()


def test_a_label_map_replaces_the_values_of_the_masks(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = module(data_dir)
    plain.setup()
    truth = plain.pairs("test", [2])[0][1]
    mapping = {7 * k + 3: k for k in range(11)}
    table = np.zeros(256, np.uint8)
    table[list(mapping.values())] = list(mapping)
    for file in sorted((data_dir / "rooms" / "annotations").rglob("*.png")):
        Image.fromarray(table[np.asarray(Image.open(file))]).save(file)
    with pytest.raises(DataError, match="which are not in the class list"):
        module(data_dir).setup()
    data = module(data_dir, label_map=mapping)
    data.setup()
    assert np.array_equal(data.pairs("test", [2])[0][1], truth)
    assert np.array_equal(data.class_list.encode(truth), table[truth])
    assert "label_map" in data.state_dict()["class_list"]
    again = module(data_dir, class_list=data.state_dict()["class_list"], label_map=mapping)
    again.setup()
    assert again.describe()["test"] == data.describe()["test"]
    # Values without a class are unlabelled, and counted.
    lacking = {value: max(label, 1) - 1 for value, label in mapping.items() if label < 9}
    lacking |= {200: 8, 201: 9, 202: 10}
    file = data_dir / "rooms" / "annotations" / "val" / "000.png"
    values = np.asarray(Image.open(file)).copy()
    values[:2] = table[9]
    Image.fromarray(values).save(file)
    with caplog.at_level("INFO"):
        fewer = module(data_dir, label_map=lacking)
        fewer.setup()
    assert (fewer.pairs("val", [0])[0][1][:2] == 255).all()
    assert re.search(
        r"val: \d+ pixels have a value that data.label_map does not name, and count as unlabelled \(66",
        caplog.text,
    )


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({300: 0}, r"data.label_map: received 300: 0; a mask value of 0 to 255 and a class number"),
        ({0: 11}, r"data.label_map: received 0: 11; .* of 0 to 10 are needed, or 255 for unl"),
        ({"wall": 0}, r"data.label_map: received 'wall': 0"),
        ({0: 0, 1: 255}, r"no mask value stands for class 1 \(floor\), 2 \(door\).* and 5 more; add"),
    ],
)  # fmt: skip
def test_a_wrong_label_map_is_reported(
    mapping: dict[int, int], message: str, data_dir: Path
) -> None:
    with pytest.raises(DataError, match=message):
        module(data_dir, label_map=mapping)


def test_a_label_map_from_the_command_line_is_used_in_prediction(
    train: Train, data_dir: Path, tmp_path: Path
) -> None:
    for file in sorted((data_dir / "rooms" / "annotations").rglob("*.png")):
        Image.fromarray(np.asarray(Image.open(file)) + np.uint8(20)).save(file)
    mapping = ",".join(f"{k + 20}:{k}" for k in range(11))
    ended = train(*command(data_dir, f"data.label_map={{{mapping}}}", "data.convert=true"))
    assert ended.code == 0, ended.err
    assert evaluate(ended.folder, None) == 0
    images = data_dir / "rooms" / "images" / "test"
    (images / "clear.png").write_bytes(BAD_IMAGES["transparent.png"][0])
    (data_dir / "rooms" / "annotations" / "test" / "clear.png").write_bytes(
        label_bytes(np.full((16, 20), 20, np.uint8))
    )
    out = predict(ended.folder, [images], tmp_path / "out", device="cpu")
    for name in ("000", "clear"):
        values = np.asarray(Image.open(out / f"{name}.labels.png"))
        assert 20 <= values.min() <= values.max() <= 30


def test_one_folder_for_both_needs_a_suffix(data_dir: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"data.images and data.annotations are both \{split\}; set data.image_suffix",
    ):
        module(data_dir, images="{split}", annotations="{split}")


def test_a_split_without_a_labelled_pixel_is_reported(data_dir: Path) -> None:
    for file in (data_dir / "rooms" / "annotations" / "val").iterdir():
        Image.fromarray(np.full((32, 40), 255, np.uint8)).save(file)
    with pytest.raises(DataError, match="the val split has no labelled pixel, in 4 masks"):
        module(data_dir).setup()


def test_only_the_requested_splits_are_read(data_dir: Path) -> None:
    for kind in ("images", "annotations"):
        for split in ("train", "val"):
            for file in (data_dir / "rooms" / kind / split).iterdir():
                file.unlink()
    data = module(data_dir)
    data.splits_to_read = ("test",)
    data.setup()
    assert list(data.splits) == ["test"]
    assert list(data.describe()) == ["test", "overlaps"]


def test_the_digest_of_a_split_covers_the_class_list(data_dir: Path) -> None:
    """The digest changes with the class list, although no file of the dataset changed."""
    digests = []
    for swapped in (False, True):
        text = (data_dir.parent / "rooms.yaml").read_text()
        if swapped:
            (data_dir.parent / "rooms.yaml").write_text(
                text.replace("name: wall", "name: x").replace("name: floor", "name: wall")
            )
        data = module(data_dir)
        data.setup()
        digests.append(data.describe()["train"]["sha256"])
    assert digests[0] != digests[1]


def test_a_batch_of_one_pair_is_rejected(train: Train, data_dir: Path) -> None:
    beit = "{model_type: beit, image_size: 32, hidden_size: 16, num_attention_heads: 2, num_hidden_layers: 4, intermediate_size: 16, out_indices: [1,2,3,4]}"
    overrides = [
        override
        for override in command(data_dir)
        if not override.startswith(("model.backbone=", "data.batch_size="))
    ]
    ended = train(*overrides, f"model.backbone={beit}", "data.batch_size=1")
    assert ended.error.startswith(
        "error: received a training batch of 1 pair; BatchNorm in the network's head needs two or more"
    ), ended.error
    assert "Traceback" not in ended.err


def test_an_operation_without_a_deterministic_form_is_reported(
    train: Train, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        msg = "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set 'torch.use_...'"
        raise RuntimeError(msg)

    monkeypatch.setattr(Segmenter, "training_step", fail)
    ended = train(*command(data_dir))
    assert ended.error == (
        "error: trainer.deterministic=true: adaptive_avg_pool2d_backward_cuda has no deterministic form on this device; "
        "set trainer.deterministic=warn"
    )
    assert "Traceback" not in ended.err


def test_exif_orientation_of_an_image_turns_its_mask(data_dir: Path) -> None:
    """The mask fits only the stored pixels, so it was drawn on them."""
    path = data_dir / "rooms" / "images" / "val" / "000.jpg"
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=95)
    data = module(data_dir)
    data.setup()
    pixels, labels = data.pairs("val", [0])[0]
    assert pixels.shape[:2] == labels.shape == (40, 32)
    assert (labels == np.rot90(mask(100), -1)).all()


def test_the_parquet_revision_of_the_hub_is_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[dict[str, object]] = []

    class Table(list[dict[str, object]]):
        features: ClassVar[dict[str, object]] = {}
        column_names: ClassVar[list[str]] = ["image", "annotation"]

    def load_dataset(name: str, **place: object) -> Table:
        requests.append({"name": name, **place})
        masks = [mask(i, classes=5) for i in range(4)]
        return Table(
            {
                "image": {"bytes": encoded(Image.fromarray(image_of(m)), "JPEG"), "path": None},
                "annotation": {"bytes": label_bytes(m + 1), "path": None},
            }
            for m in masks
        )

    monkeypatch.setitem(
        __import__("sys").modules,
        "datasets",
        SimpleNamespace(load_dataset=load_dataset, Image=dict, ClassLabel=dict),
    )
    files = {
        "revision": "refs/convert/parquet",
        "train": "scene_parsing/train/*.parquet",
        "val": None,
        "test": "scene_parsing/validation/*.parquet",
    }
    data = SegmentationDataModule(
        folder="scene_parse_150", files={"train": "training", "val": None, "test": "validation"}, class_list="scene_parse_150",  # type: ignore[arg-type]
        num_classes=150, data_dir=str(tmp_path), hub="zhoubolei/scene_parse_150", hub_files=files, val_fraction=0.25,  # type: ignore[arg-type]
    )  # fmt: skip
    data.setup()
    assert requests[0] == {
        "name": "zhoubolei/scene_parse_150", "split": "train", "revision": "refs/convert/parquet",
        "data_files": {"train": "scene_parsing/train/*.parquet"},
    }  # fmt: skip
    assert requests[1]["data_files"] == {"test": "scene_parsing/validation/*.parquet"}
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [3, 1, 4]
    assert (data.pairs("test", [1])[0][1] == mask(1, classes=5)).all()
    assert data.reference("test", [1]) == ("image", ["zhoubolei/scene_parse_150, test, row 2"])
    data.splits, data.reader = {}, replace(data.reader, annotation_column="mask")
    with pytest.raises(
        DataError, match=r"has the columns image, annotation; set data\.annotation_column"
    ):
        data.setup()


def test_real_pairs_have_their_published_classes(shared_data: Path) -> None:
    data = SegmentationDataModule(
        folder="scene_parse_150", files={"train": "validation", "val": "validation", "test": "validation"},
        class_list="scene_parse_150", num_classes=150, data_dir=str(shared_data), size=640,
    )  # fmt: skip
    data.setup()
    image, labels = data.pairs("test", [0])[0]
    assert image.shape == (*labels.shape, 3)
    values = np.asarray(
        Image.open(
            shared_data / "scene_parse_150" / "annotations" / "validation" / "ADE_val_00000001.png"
        )
    )
    assert (labels[values > 0] == values[values > 0] - 1).all()
    assert (labels[values == 0] == 255).all()
    shown = {data.class_names[k] for k in np.unique(labels) if k < 150}
    assert {"sky", "building", "grass"} <= shown  # a house on a lawn
    batch = next(iter(data.test_dataloader()))
    assert batch["labels"].shape == (3, 640, 640)
    assert int(batch["labels"][batch["labels"] != 255].max()) < 150
