"""Reading tables: good rows are returned, bad rows are reported with file and row."""

import json
from pathlib import Path

import pandas as pd
import pytest

from datamodules.reading.encodings import detect_encoding
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.rows import Row
from datamodules.reading.tables import read_rows

OTHER = "if that is wrong, set data.encoding=NAME"
NEEDED = ["id", "text", "label"]


def is_complete(row: dict[str, str]) -> bool:
    return row["label"] in ("fake", "real")


def read(path: Path) -> tuple[list[Row], list[BadRow]]:
    rows = list(read_rows(path, NEEDED, is_complete, "train"))
    return [r for r in rows if isinstance(r, Row)], [r for r in rows if isinstance(r, BadRow)]


def written(tmp_path: Path, content: str | bytes, name: str = "train.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_quoted_texts_of_several_lines_are_one_row(tmp_path: Path) -> None:
    path = written(tmp_path, 'id,text,label\r\n1,"a, ""b""\r\n\r\nc",real\r\n\r\n2,d,fake\r\n')
    rows, bad = read(path)
    assert not bad
    assert [(r.index, r.line, r.values["text"]) for r in rows] == [
        (0, 2, 'a, "b"\r\n\r\nc'),
        (1, 6, "d"),
    ]


def test_reading_equals_pandas_on_the_real_data(shared_data: Path) -> None:
    for name in ("train", "val", "test"):
        path = shared_data / "covid_fake_news" / f"{name}.csv"
        rows = list(read_rows(path, ["id", "tweet", "label"], is_complete))
        expected = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert [row.values for row in rows if isinstance(row, Row)] == expected.to_dict("records")
        assert [row.index for row in rows if isinstance(row, Row)] == list(range(len(expected)))


@pytest.mark.parametrize(
    ("broken", "following"),
    [
        ('2,"stray,real', "3,next,fake\n4,more,real\n"),  # never closed
        (
            '2,"stray,real',
            '3,"next, quoted",fake\n4,more,real\n',
        ),  # closed by the next row's own quote
        ('2,"stray,real', '3,next",fake\n4,more,real\n'),  # closed by a second stray quote
        ('2,"stray, with a comma,real', "3,next,fake\n4,more,real\n"),
        ('2,"stray,real', '3,next,fake\n4,"more, and\nmore",real\n'),
    ],
)
def test_stray_quote_affects_only_its_own_row(broken: str, following: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"id,text,label\n1,first,real\n{broken}\n{following}5,last,fake\n")
    rows, bad = read(path)
    assert "quote" in bad[0].reason
    assert (bad[0].file, bad[0].row, bad[0].line, bad[0].split) == ("train.csv", 2, 3, "train")
    read_ids = [row.values["id"] for row in rows]
    assert read_ids[0] == "1"
    assert read_ids[-1] == "5"
    assert len(rows) + len(bad) == 5
    assert [row.index for row in rows] == [int(i) - 1 for i in read_ids]


@pytest.mark.parametrize(
    "content",
    [
        'label,text,id\nreal,"first line\nsecond line",1\nfake,"a\nb\nc",2\n',
        'id,label,text\n1,real,"first line\nsecond line"\n2,fake,"a, b\nc, d"\n',
        'id,text,label\n1,"is it real, fake\nor not",real\n2,"yes, no\nreal, very",fake\n',
    ],
)
def test_correct_texts_of_several_lines_are_not_reported(content: str, tmp_path: Path) -> None:
    rows, bad = read(written(tmp_path, content))
    assert not bad
    assert [row.values["id"] for row in rows] == ["1", "2"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2,a", "has 2 fields where the header has 3"),
        ("2,a,real,x", "has 4 fields where the header has 3"),
    ],
)
def test_wrong_number_of_fields(row: str, reason: str, tmp_path: Path) -> None:
    rows, bad = read(written(tmp_path, f"id,text,label\n1,x,real\n{row}\n3,y,fake\n"))
    assert [str(b) for b in bad] == [f"train.csv, row 2 (line 3): {reason}"]
    assert [row.values["id"] for row in rows] == ["1", "3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n", "has no header"),
        (
            b"id,tweet,label\n1,x,real\n",
            "no column 'text'; it has id, tweet, label; set data.text_column",
        ),
        (b"id,text,text,label\n", "names 'text' 2 times"),
    ],
)
def test_unusable_file_is_reported(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(written(tmp_path, content))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_encodings(encoding: str, tmp_path: Path) -> None:
    rows, bad = read(written(tmp_path, "id,text,label\n1,über 😷,real\n".encode(encoding)))
    assert not bad
    assert rows[0].values == {"id": "1", "text": "über 😷", "label": "real"}


def test_windows_1252_is_read_if_no_byte_contradicts_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "id,text,label\n1,it’s “über”,real\n".encode("cp1252"))
    rows, bad = read(path)
    assert rows[0].values["text"] == "it’s “über”"
    assert not bad
    assert "train.csv is not UTF-8; it is read as Windows-1252" in caplog.text


def test_a_mixture_of_encodings_names_the_rows(tmp_path: Path) -> None:
    path = written(tmp_path, b"id,text,label\n1,\xc3\xbcber,real\n2,\xfcber,fake\n3,fine,real\n")
    rows, bad = read(path)
    assert [str(b) for b in bad] == ["train.csv, row 2 (line 3): is not UTF-8: byte 0xFC; " + OTHER]
    assert [row.values["text"] for row in rows] == ["über", "fine"]


def test_another_alphabet_is_not_read_as_windows_1252(tmp_path: Path) -> None:
    path = written(tmp_path, "id,text,label\n1,Привет мир,real\n2,fine,fake\n".encode("cp1251"))
    rows, bad = read(path)
    assert [str(b) for b in bad] == ["train.csv, row 1 (line 2): is not UTF-8: byte 0xCF; " + OTHER]
    assert len(rows) == 1


def test_damaged_utf16_and_header(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not valid UTF-16"):
        read(written(tmp_path, "id,text,label\n1,x,real\n".encode("utf-16")[:-1]))
    with pytest.raises(DataError, match="the header is not UTF-8: byte 0xFF"):
        read(written(tmp_path, b"id,te\xff\xc3\xbcxt,text,label\n1,x,\xc3\xbc,real\n"))
    with pytest.raises(DataError, match="line 1: the header is unreadable: a stray quote is never"):
        read(written(tmp_path, b'id,"text,label\n1,x,real\n'))


def test_undefined_bytes_are_not_windows_1252(tmp_path: Path) -> None:
    assert detect_encoding(written(tmp_path, b"id\n\x81\n")) == "utf-8"


def test_other_formats(tmp_path: Path) -> None:
    values = [
        {"id": 1, "text": "a\tb\n😷", "label": "real"},
        {"id": 2, "text": "c", "label": "fake"},
    ]
    frame = pd.DataFrame(values)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(v) for v in values) + "\n\n")
    for name in ("a.parquet", "a.tsv", "a.jsonl"):
        rows, bad = read(tmp_path / name)
        assert not bad
        assert [row.values["text"] for row in rows] == ["a\tb\n😷", "c"]
        assert [row.index for row in rows] == [0, 1]


def test_jsonl_faults(tmp_path: Path) -> None:
    lines = [
        '{"id": 1, "text": "a", "label": "real"}',
        "{broken",
        "[1]",
        '{"id": 2, "label": "fake"}',
    ]
    rows, bad = read(written(tmp_path, "\n".join(lines), "train.jsonl"))
    assert len(rows) == 1
    assert [b.row for b in bad] == [2, 3, 4]
    assert "is not JSON" in bad[0].reason
    assert bad[1].reason == "is not a JSON object but list"
    assert bad[2].reason == "has no 'text'"


def test_unreadable_parquet_and_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read(written(tmp_path, b"PAR1 but not really", "train.parquet"))
    with pytest.raises(DataError, match=r"cannot read '.xlsx' files"):
        read(written(tmp_path, b"x", "train.xlsx"))
