"""Many texts in a buffer and a temporary file equal a list of texts."""

import os
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.reading import texts as module
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.labels import ClassLabels
from datamodules.reading.rows import Row
from datamodules.reading.text_rows import RowReader
from datamodules.reading.texts import Texts


@pytest.fixture(params=[1, 40, 2**20])
def in_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts, some or none are in the file."""
    monkeypatch.setattr(module, "_IN_MEMORY", request.param)


@pytest.mark.usefixtures("in_memory")
def test_packed_texts_equal_a_list() -> None:
    texts = [
        "a.png",
        "",
        "ü/日本.png",
        os.fsdecode(b"\xff\xfe.png"),
        *(f"text {k}" for k in range(99)),
    ]
    packed = Texts(texts)
    assert list(packed) == texts
    assert packed[-1] == texts[-1]
    assert packed[1:70:2] == texts[1:70:2]
    assert [packed[p] for p in range(len(texts))] == texts
    assert list(packed.take([2, 0, 2])) == ["ü/日本.png", "a.png", "ü/日本.png"]
    assert list(pickle.loads(pickle.dumps(packed))) == texts
    with pytest.raises(IndexError):
        packed[len(texts)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=80), st.integers(1, 50))
def test_any_texts_are_kept(texts: list[str], in_memory: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_IN_MEMORY", in_memory)
        packed = Texts(texts)
        assert list(packed) == texts
        first: dict[str, int] = {}
        expected = {p: first[t] for p, t in enumerate(texts) if first.setdefault(t, p) != p}
        assert packed.repetitions() == expected


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_IN_MEMORY", 1)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(DataError, match=r"No space left on device.*; free space, or set TMPDIR"):
        Texts(["text"])


def test_rows_with_a_repeated_id_are_bad_and_in_order() -> None:
    rows = [
        Row(0, 2, {"id": "a", "text": "one", "label": "no"}),
        Row(1, 3, {"id": "a", "text": "two", "label": "yes"}),
        BadRow("train", "t.csv", 3, 4, "is torn"),
        Row(3, 5, {"id": "b", "text": "three", "label": "yes"}),
        Row(4, None, {"id": "a", "text": "four", "label": "no"}),
        Row(5, 7, {"id": "c", "text": "", "label": "no"}),
        Row(6, 8, {"id": "c", "text": "five", "label": "no"}),
    ]
    reader = RowReader("text", ClassLabels("label", ["no", "yes"]), "id")
    split, bad = reader.read(rows, "t.csv", "train")
    assert list(split.texts) == ["one", "three", "five"]
    assert split.indices.tolist() == [0, 3, 6]
    assert split.labels.tolist() == [0, 1, 0]
    assert list(map(str, bad)) == [
        "t.csv, row 2 (line 3): id 'a' is already in row 1",
        "t.csv, row 3 (line 4): is torn",
        "t.csv, row 5: id 'a' is already in row 1",
        "t.csv, row 6 (line 7): column 'text' is empty",
    ]


def test_an_id_that_is_empty_or_no_text_is_a_bad_row() -> None:
    ids = [None, " ", "\ud800", 7]
    rows = [Row(k, k + 2, {"id": each, "text": "a", "label": "no"}) for k, each in enumerate(ids)]
    reader = RowReader("text", ClassLabels("label", ["no", "yes"]), "id")
    split, bad = reader.read(rows, "t.jsonl", "train")
    assert split.indices.tolist() == [3]
    assert [row.reason for row in bad] == [
        "column 'id' is empty",
        "column 'id' is empty",
        "column 'id' has an unpaired surrogate U+D800",
    ]


def test_a_null_character_is_named_in_every_format() -> None:
    rows = [Row(0, 1, {"text": "a\0b", "label": "no"}), Row(1, 2, {"text": "b", "label": "no"})]
    reader = RowReader("text", ClassLabels("label", ["no", "yes"]), None)
    _, bad = reader.read(rows, "t.jsonl", "train")
    assert [row.reason for row in bad] == ["has a null character; remove it"]


def test_hub_rows_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from datamodules.reading.sources import hub_table

    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}).cast_column(
        "label", datasets.ClassLabel(names=["no", "yes"])
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    found = hub_table("name", "train")
    assert found.columns == ["text", "label"]
    assert next(found.rows).values == {"text": "a", "label": "yes"}
    assert [row.index for row in found.rows] == [1]


def test_the_temporary_file_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IN_MEMORY", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    packed = Texts(["a", "b"])
    assert packed[0] == "a"
    assert not list(tmp_path.iterdir())
