"""Val and test that are drawn from train: the same on every machine, stratified, whole groups."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datamodules.image import ImageDataModule
from datamodules.reading.errors import DataError
from datamodules.reading.splits import grouped_split
from datamodules.text import TextDataModule
from tests.images import encoded, picture

LABELS = ("joy", "anger", "fear", "joy")
FILES: Any = {"train": "moods.csv", "val": None, "test": None}


def write(folder: Path, count: int = 200, **columns: Sequence[Any]) -> Path:
    """Write a table of texts by 23 users."""
    rows = {
        "text": [f"a note with the number {i}, and some words" for i in range(count)],
        "label": [LABELS[i % 4] for i in range(count)],
        "user": [f"user {i * i % 23}" for i in range(count)],
        **columns,
    }
    pd.DataFrame(rows).to_csv(folder / "moods.csv", index=False)
    return folder


def read(folder: Path, *splits: str, **settings: Any) -> TextDataModule:
    data = TextDataModule(str(folder), {"vocab_size": 99}, **settings)
    data.splits_to_read = splits or ("train", "val", "test")
    data.setup()
    return data


def indices(data: TextDataModule) -> dict[str, list[int]]:
    return {name: split.indices.tolist() for name, split in data.splits.items()}


def test_a_dataset_without_settings(tmp_path: Path) -> None:
    data = read(write(tmp_path), text_column="text", label_column="label")
    assert (data.class_names, data.num_classes) == (["anger", "fear", "joy"], 3)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 162, "val": 18, "test": 20
    }  # fmt: skip
    for split in data.splits.values():
        shares = np.bincount(split.labels) / len(split)
        assert np.abs(shares - [0.25, 0.25, 0.5]).max() < 0.03
    rows = indices(data)
    assert sorted(chain(*rows.values())) == list(range(200))
    words = data.splits["test"].texts_of(rows["test"])
    assert words == [f"a note with the number {i}, and some words" for i in rows["test"]]


def test_folders_may_be_path_objects(tmp_path: Path) -> None:
    folder = write(tmp_path)
    data = TextDataModule(Path(folder.name), {"vocab_size": 99}, data_dir=folder.parent)
    assert (data.data_dir, data.folder) == (str(folder.parent), folder.name)


@pytest.mark.parametrize("group", [None, "user"])
def test_the_test_split_is_the_same_for_every_seed_and_use(
    group: str | None, tmp_path: Path
) -> None:
    settings: Any = {
        "files": FILES, "classes": sorted(set(LABELS)), "text_column": "text", "label_column": "label",
        "test_fraction": 0.2, "group_column": group,
    }  # fmt: skip
    write(tmp_path)
    first, second = (indices(read(tmp_path, seed=seed, **settings)) for seed in (1, 2))
    assert first["test"] == second["test"]
    assert first["val"] != second["val"]
    assert indices(read(tmp_path, "test", **settings)) == {"test": first["test"]}
    both = indices(read(tmp_path, "train", "val", seed=1, **settings))
    assert both == {name: first[name] for name in ("train", "val")}
    known = {None: [0, 6, 9], "user": [0, 2, 9]}[group]
    assert first["test"][:3] == known  # on every machine


def test_groups_stay_together(tmp_path: Path) -> None:
    users = pd.read_csv(write(tmp_path, 400) / "moods.csv")["user"].to_numpy()
    data = read(tmp_path, group_column="user", label_column="label", test_fraction=0.2)
    parts = {name: set(users[rows]) for name, rows in indices(data).items()}
    assert sum(map(len, parts.values())) == len(set(users))
    assert 60 <= len(data.splits["test"]) <= 100
    facts = data.describe()
    for name, groups in parts.items():
        assert (facts[name]["group_column"], facts[name]["groups"]) == ("user", len(groups))
    labels = data.splits["train"].labels
    share = round(float(np.mean(labels == np.bincount(labels).argmax())), 4)
    assert facts["train"]["largest_class"]["share"] == share
    for name in ("train", "test"):
        split = data.splits[name]
        shares = np.bincount(split.labels, minlength=3) / len(split)
        assert np.abs(shares - [0.25, 0.25, 0.5]).max() < 0.06


def test_a_row_without_a_group_is_a_bad_row(tmp_path: Path) -> None:
    write(tmp_path, user=["", *(f"u{i % 9}" for i in range(199))])
    with pytest.raises(DataError, match=r"moods.csv, row 1 \(line 2\): column 'user' is empty"):
        read(tmp_path, group_column="user", label_column="label")
    data = read(tmp_path, group_column="user", label_column="label", on_bad_rows="skip")
    assert [row.number for row in data.bad_rows] == [1]
    assert sum(map(len, data.splits.values())) == 199


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_column": "author"}, "no column 'author'; it has text, label, user; set data.text_column, image_column, label_column or group_column"),
        ({"group_column": "user", "files": {**FILES, "val": "moods.csv", "test": "moods.csv"}}, "data.group_column=user keeps groups together where val or test is drawn"),
        ({"test_fraction": 0.1, "files": {**FILES, "test": "moods.csv"}}, "data.test_fraction=0.1, and data.files.test=moods.csv; set one"),
    ],
)  # fmt: skip
def test_settings_that_contradict_the_data(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path)
    given = {
        "files": FILES, "test_fraction": None, "text_column": "text", "label_column": "label",
        "classes": sorted(set(LABELS)),
    }  # fmt: skip
    with pytest.raises(DataError, match=message):
        read(tmp_path, "train", "val", **{**given, **settings})


def test_a_test_split_is_named_where_it_is_neither_a_file_nor_drawn(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.files.test: received None; name a file"):
        read(write(tmp_path), files=FILES, label_column="label")


def test_too_few_rows_are_one_line(tmp_path: Path) -> None:
    write(tmp_path, 3, label=["a", "b", "b"])
    with pytest.raises(DataError, match=r"data.val_fraction=0.1: the train file has too few rows"):
        read(tmp_path, label_column="label")


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.5])
def test_parts_of_groups(fraction: float) -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), rng.integers(1, 30, 60))
    labels = rng.integers(0, 4, len(groups))
    first, second = grouped_split(labels, groups, fraction, seed=1)
    assert sorted([*first, *second]) == list(range(len(groups)))
    assert not set(groups[first]) & set(groups[second])
    assert len(second) == pytest.approx(fraction * len(groups), abs=30)  # a group has up to 29
    wanted, found = (Counter(labels[part].tolist()) for part in ([*first, *second], second))
    assert all(abs(found[k] - fraction * wanted[k]) < 15 for k in wanted)
    assert grouped_split(labels, groups, fraction, seed=1) == (first, second)
    assert grouped_split(labels, groups, fraction, seed=2) != (first, second)


@pytest.mark.parametrize(("groups", "parts"), [([0, 0, 1], (1, 2)), ([0, 1], (1, 1))])
def test_each_part_has_a_group(groups: list[int], parts: tuple[int, int]) -> None:
    first, second = grouped_split([0] * len(groups), groups, 0.01, seed=0)
    assert sorted([len(first), len(second)]) == sorted(parts)


def test_images_of_a_table_and_of_a_folder(tmp_path: Path) -> None:
    for i in range(40):
        folder = tmp_path / "pictures" / ("red", "blue")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(encoded(picture(folder.name, i)))
    rows = [
        {"path": f"pictures/{('red', 'blue')[i % 2]}/{i}.png", "colour": i % 2, "patient": i // 4}
        for i in range(40)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "list.csv", index=False)
    data = ImageDataModule(
        str(tmp_path / "list.csv"), group_column="patient", label_column="colour"
    )
    data.setup()
    parts = [set((split.indices // 4).tolist()) for split in data.splits.values()]
    assert sum(map(len, parts)) == 10
    assert min(map(len, parts)) >= 1
    assert data.class_names == ["0", "1"]
    settings: Any = {
        "files": {"train": "pictures", "val": None, "test": None},
        "test_fraction": 0.2,
    }
    folders = ImageDataModule(str(tmp_path), **settings)
    folders.setup()
    assert [len(folders.splits[name]) for name in ("train", "val", "test")] == [29, 3, 8]
    with pytest.raises(
        DataError, match=r"data.group_column=patient: .*pictures is a folder, which"
    ):
        ImageDataModule(str(tmp_path), **settings, group_column="patient").setup()
