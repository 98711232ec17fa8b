"""Labels of a row: one class, several columns, separated names; and splits by them."""

from collections import Counter
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest

from datamodules.reading.errors import DataError
from datamodules.reading.label_settings import check_classes, label_reader
from datamodules.reading.labels import LabelColumns, SeparatedLabels

NAMES = ["joy", "anger", "fear"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0), (0, 0.0), (True, 1.0), (1.0, 1.0), ("1", 1.0), (" 0 ", 0.0), ("0.0", 0.0), ("TRUE", 1.0),
        ("false", 0.0), (2, "holds 2"), ("yes", "holds 'yes'"), ("", "is empty"), (None, "is empty"),
        (float("nan"), "holds nan"), ("0.5", "holds '0.5'"),
    ],
)  # fmt: skip
def test_a_column_of_a_label_has_0_or_1(value: Any, expected: float | str) -> None:
    label, reason = LabelColumns(["joy", "anger"], ["joy", "anger"]).read(
        {"joy": 0, "anger": value}
    )
    if isinstance(expected, float):
        assert (label, reason) == ((0.0, expected), "")
    else:
        assert reason == f"column 'anger' {expected}; 0 or 1 is needed"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("joy; fear", (1, 0, 1)), ("fear;joy;", (1, 0, 1)), ("joy;joy", (1, 0, 0)), ("", (0, 0, 0)),
        (None, (0, 0, 0)), (" ; ", (0, 0, 0)), (["anger"], (0, 1, 0)), ([0, 2], (1, 0, 1)), ([], (0, 0, 0)),
        ("joi", "label 'joi' is none of joy, anger, fear; did you mean joy?"),
        ([3], "label 3 is outside of 0..2"), (0, "label '0' is none of joy, anger, fear"),
    ],
)  # fmt: skip
def test_names_are_separated(value: Any, expected: tuple[int, ...] | str) -> None:
    label, reason = SeparatedLabels("tags", ";", NAMES).read({"tags": value})
    assert (reason if isinstance(expected, str) else label) == expected
    assert bool(reason) == isinstance(expected, str)


@pytest.mark.parametrize(
    ("names", "value", "expected"),
    [
        (["0", "1"], "1.0", 1), (["0", "1"], 1.0, 1), (["0", "1"], 1, 1), (["0", "1"], " 1. ", 1),
        (["0", "1"], "1.5", "label '1.5' is none of 0, 1"), (["0", "1"], "01", "label '01' is none of 0, 1; did you mean 1?"),
        (["1", "2"], 1.0, 0), (["-1.0", "1.0"], "-1", 0), (["-1.0", "1.0"], -1, 0), (["1", "1.0"], "1.0", 1),
        (["false", "true"], True, 1), (["false", "true"], "True", 1), (["False", "True"], "FALSE", 0),
        (["ham", "spam"], 1, 1), (["ham", "spam"], 1.0, "label '1.0' is none of ham, spam"),
        (["ham", "spam"], "1.0", "label '1.0' is none of ham, spam"), (["0", "1"], float("nan"), "label 'nan' is none of 0, 1"),
    ],
)  # fmt: skip
def test_whole_numbers_and_truth_values_have_several_spellings(
    names: list[str], value: Any, expected: int | str
) -> None:
    reader = label_reader("label", None, names)
    label, reason = reader.read({"label": value})
    assert (reason or label) == expected
    if isinstance(value, str):
        assert reader.is_complete({"label": value}) == isinstance(expected, int)
    several = label_reader("label", ";", names)
    found, reason = several.read({"label": [value]})
    assert (reason or found.index(1.0)) == expected


def test_a_label_map_is_asked_before_other_spellings() -> None:
    reader = label_reader("label", None, ["0", "1"], {"1.0": "0"})
    assert [reader.read({"label": value})[0] for value in ("1", "1.0", "1.00")] == [1, 0, 1]


@pytest.mark.parametrize("given", [1, 1.0, "1", "1.0"])
@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", " 1.00"])
def test_a_number_in_a_label_map_has_any_spelling(given: object, value: object) -> None:
    for separator in (None, ";"):
        reader = label_reader("label", separator, ["ham", "spam"], {given: "ham", 0: "spam"})
        label, reason = reader.read({"label": value})
        assert not reason
        assert label == (0 if separator is None else (1.0, 0.0))


def test_spellings_of_a_number_may_have_several_names() -> None:
    reader = label_reader("label", None, ["ham", "spam"], {"1": "ham", "1.0": "spam"})
    assert [reader.read({"label": value})[0] for value in ("1", "1.0", "1.00")] == [0, 1, 0]


def test_an_empty_label_is_a_label_of_a_row() -> None:
    reader = SeparatedLabels("tags", ";", NAMES)
    assert reader.is_complete({"tags": "joy"})
    assert reader.is_complete({"tags": ""})
    assert not reader.is_complete({"tags": "a word"})


@pytest.mark.parametrize(
    ("column", "separator", "names", "message"),
    [
        ("label", None, [], "data.classes: the names of the classes in the label column are needed"),
        (["a", "b"], ";", ["a", "b"], "names 2 columns; set one of the two"),
        (["a", "b"], None, ["a"], "one column is needed for each label"),
        (["a", "a"], None, ["a", "b"], "data.label_column names a twice"),
        ("tags", ";", ["a;b"], "the name 'a;b' contains ';', which separates labels"),
        (["a", "b"], None, ["a", "b;c"], "the name 'b;c' contains ';'"),
        ("tags", "", ["a"], "received an empty string"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other(
    column: str | list[str], separator: str | None, names: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        label_reader(column, separator, names)


def test_a_part_of_train_has_each_label_in_the_same_share() -> None:
    reader = LabelColumns(NAMES, NAMES)
    rng = np.random.default_rng(0)
    labels = [tuple(map(float, row)) for row in rng.random((400, 3)) < (0.5, 0.2, 0.03)]
    first, second = reader.divide(labels, 0.25, seed=1)
    assert sorted([*first, *second]) == list(range(400))
    assert len(second) == 100
    share = [sum(labels[i][k] for i in second) / sum(row[k] for row in labels) for k in range(3)]
    assert share == pytest.approx([0.25] * 3, abs=0.06)
    assert reader.divide(labels, 0.25, seed=1) == (first, second)
    empty = Counter(sum(labels[i]) == 0 for i in second)[True]
    assert empty == pytest.approx(0.25 * sum(sum(row) == 0 for row in labels), abs=1)


def test_labels_that_no_sample_has_are_named() -> None:
    assert LabelColumns(NAMES, NAMES).unseen([(0.0, 1.0, 0.0)]) == ["joy", "fear"]


def test_many_classes_are_shortened() -> None:
    names = [f"class {k}" for k in range(300)]
    _, reason = label_reader("label", None, names).read({"label": "clas 7"})
    assert reason == (
        "label 'clas 7' is none of class 0, class 1, class 2, class 3, class 4 and 295 more; "
        "did you mean class 7?"
    )


@pytest.mark.parametrize("value", ["1", 1, 1.0, "SPAM", "Junk", True, " 1 "])
def test_other_values_stand_for_classes(value: Any) -> None:
    names = {0: "ham", 1: "spam", "SPAM": "spam", "Junk": "spam"}
    reader = label_reader("label", None, ["ham", "spam"], {**names, "true": "spam"})
    assert reader.read({"label": value}) == (1, "")
    assert reader.is_complete({"label": "0"})
    several = label_reader("label", "|", ["ham", "spam"], names)
    assert several.read({"label": "0|Junk"}) == ((1.0, 1.0), "")


def test_a_label_map_names_classes_only() -> None:
    for names, message in (
        ({0: "eggs"}, r"data\.label_map: received 'eggs', which is none of ham"),
        ({1: "ham", "1": "spam"}, "'1' stands for 'ham' and 'spam'"),
        ({"ham": "spam"}, "'ham' stands for 'ham' and 'spam'"),
    ):
        with pytest.raises(DataError, match=message):
            label_reader("label", None, ["ham", "spam"], names)


@pytest.mark.parametrize(("of_class", "of_file"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_an_accented_letter_is_one_or_two_characters(of_class: Any, of_file: Any) -> None:
    names = ["thé", "café"]
    classes = [normalize(of_class, name) for name in names]
    value = normalize(of_file, " café ")
    reader = label_reader("label", None, classes, {normalize(of_file, "bière"): classes[1]})
    assert reader.read({"label": value}) == (1, "")
    assert reader.is_complete({"label": value})
    assert reader.read({"label": normalize(of_class, "bière")}) == (1, "")
    assert label_reader("label", ";", classes).read({"label": value}) == ((0.0, 1.0), "")
    assert label_reader("label", None, classes, {"x": value.strip()}).read({"label": "x"})[0] == 1
    with pytest.raises(DataError, match="names a class twice"):
        check_classes([classes[1], value.strip()], 2)
