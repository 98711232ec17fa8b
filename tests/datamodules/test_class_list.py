"""Class lists: the classes that mask values represent, and errors in a list."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from datamodules.masks.class_list import ClassList
from datamodules.reading.errors import DataError
from run_folders.untrusted import DamagedFileError
from tests.masks import NAMES, class_list


def test_scene_parse_150_is_the_published_list(shared_data: Path) -> None:
    with (shared_data / "scene_parse_150" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    ours = ClassList.read("scene_parse_150")
    assert len(ours.names) == len(set(ours.names)) == 150
    assert list(ours.colours) == [(int(r["red"]), int(r["green"]), int(r["blue"])) for r in rows]
    for name, row in zip(ours.names, rows, strict=True):
        assert set(name.split()) <= set(row["name"].split(";")), (name, row["name"])
    assert ours.zero_is_unlabelled
    assert ours.ignore_value is None


def test_values_become_classes_and_back() -> None:
    ours = ClassList.read("scene_parse_150")
    values = np.arange(151, dtype=np.uint8)[None]
    labels, fault = ours.decode(values)
    assert fault == ""
    assert labels[0, 0] == 255
    assert labels[0, 1:].tolist() == list(range(150))
    assert ours.encode(labels).tolist() == values.tolist()
    other = ClassList(("a", "b"), ((0, 0, 0), (1, 1, 1)), zero_is_unlabelled=False, ignore_value=9)
    labels, fault = other.decode(np.array([[0, 1, 9]], np.uint8))
    assert (labels.tolist(), fault) == ([[0, 1, 255]], "")
    assert other.encode(np.array([[0, 1]], np.uint8)).tolist() == [[0, 1]]


def test_values_of_no_class_are_reported_with_their_counts() -> None:
    ours = ClassList.read("scene_parse_150")
    _, fault = ours.decode(np.array([[151, 151, 200, 0, 1]], np.uint8))
    assert fault == (
        "has the values 151 in 2 pixels, 200 in 1 pixel, which are not in the class list; known are 1 to 150, and 0 for unlabelled pixels"
    )
    other = ClassList(
        ("a", "b"), ((0, 0, 0), (1, 1, 1)), zero_is_unlabelled=False, ignore_value=255
    )
    _, fault = other.decode(np.array([[2, 3, 4, 5, 255]], np.uint8))
    assert fault == (
        "has the values 2 in 1 pixel, 3 in 1 pixel, 4 in 1 pixel and 1 more, which are not in the class list; "
        "known are 0 to 1, and 255 for unlabelled pixels"
    )


def test_a_list_can_be_rebuilt_from_its_plain_values(tmp_path: Path) -> None:
    ours = ClassList.read(str(class_list(tmp_path / "rooms.yaml")))
    assert list(ours.names) == NAMES
    assert ClassList.from_plain(ours.as_plain(), "here") == ours


GOOD = {
    "zero_is_unlabelled": False,
    "ignore_value": 255,
    "classes": [{"name": n, "colour": [1, 2, 3]} for n in "ab"],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": None}, "classes: a list of 2 to 255 classes is needed"),
        (
            {"classes": [{"name": "a", "colour": [1, 2, 3]}]},
            "classes: a list of 2 to 255 classes is needed",
        ),
        ({"classes": [{"name": "a"}, {"name": "b"}]}, "classes, entry 1: received {'name': 'a'}"),
        (
            {"classes": [{"name": "a", "colour": [1, 2, 3]}, {"name": "b", "colour": [1, 2, 256]}]},
            "classes, b: colour is",
        ),
        ({"classes": [{"name": "a", "colour": [1, 2, 3]}] * 2}, "classes: a is listed twice"),
        (
            {"classes": [{"name": False, "colour": [1, 2, 3]}] * 2},
            "classes, entry 1: received False as its name; text is needed",
        ),
        (
            {"classes": [{"name": " ", "colour": [1, 2, 3]}] * 2},
            "classes, entry 1: received ' ' as its name; text is needed",
        ),
        ({"zero_is_unlabelled": "yes"}, "zero_is_unlabelled: received 'yes'"),
        ({"ignore_value": 256}, "ignore_value: received 256"),
        ({"ignore_value": 1}, "ignore_value: 1 is the value of b"),
        ({"more": 1}, "a class list has the keys zero_is_unlabelled, ignore_value, classes"),
    ],
)
def test_errors_in_a_list_are_reported(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(DataError) as caught:
        ClassList.read(str(path))
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_or_unreadable_list_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"data\.class_list=scene_parse_15: no such class list; did you mean scene_parse_150",
    ):
        ClassList.read("scene_parse_15")
    with pytest.raises(
        DataError,
        match=r"no such class list; give sample_scenes or scene_parse_150, or the path of a \.yaml",
    ):
        ClassList.read(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(DamagedFileError, match=r"bad\.yaml is damaged: .*; correct the class list"):
        ClassList.read(str(tmp_path / "bad.yaml"))
