"""Odd files: other formats by the wrong name, JSON in other layouts, escapes, endless lines."""

import csv
import gzip
import io
import json
import logging
import os
import re
import zipfile
from pathlib import Path
from unicodedata import normalize

import pandas as pd
import pytest

from datamodules.reading import encodings, jsonl
from datamodules.reading.csv_rows import CsvReader
from datamodules.reading.encodings import detect_encoding
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.formats import TableFormat, find_format
from datamodules.reading.rows import Row
from datamodules.reading.tables import read_rows
from datamodules.reading.text_rows import text_rows
from tests.datamodules.test_table_formats import NEEDED, read
from tests.datamodules.test_tables import written

TABLE = "id,text,label\n1,a,x\n2,b,y\n"
COMPOSED, DECOMPOSED = normalize("NFC", "café"), normalize("NFD", "café")


def zipped(name: str, content: str = "") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr(name, content)
    return stream.getvalue()


def parquet() -> bytes:
    stream = io.BytesIO()
    pd.DataFrame({"text": ["a"], "label": ["x"]}).to_parquet(stream)
    return stream.getvalue()


PAGE = b"\n<!DOCTYPE html>\n<html><body>404</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"
OBJECTS = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", gzip.compress(b"text", mtime=0), "is packed with gzip; unpack it"),
        ("a.csv", zipped("a.csv"), "is a ZIP archive; unpack it"),
        ("a.txt", zipped("a.csv"), "is a ZIP archive; unpack it"),
        ("a.tsv", zipped("[Content_Types].xml"), "is a file of Microsoft Office; save it as CSV"),
        ("a.csv", zipped("mimetype", "application/vnd.oasis.opendocument.spreadsheet"),
         "is an OpenDocument file; save it as CSV"),
        ("a.jsonl", parquet(), "is a Parquet file; rename it to .parquet"),
        ("a.parquet", TABLE.encode(), "is a text file; if it is a table, rename it to .csv"),
        ("a.parquet", parquet()[:-9], "is not a readable Parquet file"),
        ("a.csv", PAGE, "is a page of HTML; the download failed: download it again"),
        ("a.parquet", PAGE, "is a page of HTML"),
        ("a.csv", LFS, "is a pointer of Git LFS; run: git lfs pull"),
        ("a.parquet", LFS, "is a pointer of Git LFS; run: git lfs pull"),
        ("a.txt", LFS, "is a pointer of Git LFS; run: git lfs pull"),
        ("a.csv", "\n".join(map(json.dumps, OBJECTS)).encode(), "is a file of JSON objects; rename"),
        ("a.jsonl", TABLE.encode(), "no line is JSON; line 1 is not JSON: .* rename a table to .csv"),
        ("a.jsonl", json.dumps(OBJECTS).encode(), "is one JSON array; write each object on its own"),
        ("a.jsonl", json.dumps(OBJECTS, indent=1).encode(), r"is one JSON array; .* jq -c '\.\[\]'"),
        ("a.csv", json.dumps(OBJECTS, indent=1).encode(), "is one JSON array"),
        ("a.jsonl", json.dumps(OBJECTS[0], indent=1).encode() * 2, r"is JSON over several .* jq -c \."),
        ("a.csv.gz", b"x", r"cannot read '.gz' files; give one of \.csv, .*; unpack it"),
        ("a.xlsx", b"x", "cannot read '.xlsx' files; .*; save it as CSV in the program that wrote it"),
        ("a.json", b"x", r"cannot read '.json' files; .*; rename it to \.jsonl if each line is an"),
    ],
)  # fmt: skip
def test_other_formats_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, content, name)
    with pytest.raises(DataError, match=message) as caught:
        list(text_rows(path, "text"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["<!DOCTYPE html>", '{"a": 1}', "BZh is text", "PAR1, PAR2"])
def test_markup_may_be_a_text(text: str, tmp_path: Path) -> None:
    assert len(list(text_rows(written(tmp_path, text, "a.txt"), "text"))) == 1


def test_a_row_of_jsonl_may_lack_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lines = ['{"label": "x"}', "", '{"text": "a", "label": "y"}', "[1]", ""]
    _, bad = read(written(tmp_path, "\n".join(lines), "a.jsonl"))
    assert bad == [
        "a.jsonl, row 1 (line 1): has no 'text'",
        "a.jsonl, row 3 (line 4): is not a JSON object but list",
    ]
    assert "a.jsonl: passed over 1 empty line" in caplog.text
    monkeypatch.setattr(jsonl, "_FIRST", 2)
    other = '{"tweet": "a", "label": "x"}\n{"n": 1}\n{"text": "a", "label": "x"}\n'
    with pytest.raises(DataError, match=r"no column 'text'; it has tweet, label, n; set data\."):
        read(written(tmp_path, other, "a.jsonl"))


def test_the_first_row_of_jsonl_may_be_bad(tmp_path: Path) -> None:
    for line in ('[{"text": "b"}]', '{"text": "b",', "[1]"):
        rows, bad = read(written(tmp_path, f'{line}\n{{"text": "a", "label": "x"}}\n', "a.jsonl"))
        assert len(rows) == len(bad) == 1


def test_empty_lines_of_several_columns_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows, bad = read(written(tmp_path, "text,label\na,x\n\n\nb,y\n\n"))
    assert (len(rows), bad) == (2, [])
    assert "train.csv: passed over 2 empty lines" in caplog.text


def escaped(rows: list[list[str]], quoting: int, delimiter: str = ",") -> str:
    stream = io.StringIO()
    options = {"quoting": quoting, "delimiter": delimiter, "lineterminator": "\n"}
    csv.writer(stream, escapechar="\\", doublequote=False, **options).writerows(rows)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_escaped_quotes_are_found(quoting: int, delimiter: str, tmp_path: Path) -> None:
    texts = ['"a", ; \t "b"', 'he said "hi"', "plain", 'two\nlines, "x"', '"', '",'] * 3
    rows = [["text", "label"], *([text, "x"] for text in texts)]
    path = written(tmp_path, escaped(rows, quoting, delimiter))
    assert str(find_format(path, NEEDED, TableFormat())).endswith("quoting csv, escape '\\'")
    found, bad = read(path)
    assert not bad
    assert [row["text"] for row in found] == texts


def test_other_backslashes_are_kept_or_named(tmp_path: Path) -> None:
    """Some programs escape a backslash as well, others write it as it is."""
    path = written(
        tmp_path,
        "text,label\n" + '"a \\"b\\", c",x\n' * 3 + "C:\\dir,x\n"
        '"a \\\\ b",x\n"C:\\dir\\\\",x\nend\\,x\n"two\\\nlines",x\nlast,x\n',
    )
    rows, bad = read(path)
    assert [row["text"] for row in rows] == ['a "b", c'] * 3 + ["C:\\dir", "last"]
    assert len(bad) == 5
    assert "its quotes do not pair up; write a quote" in bad[4]
    assert "has a backslash before '\\\\', which may be text or an escape; write a quote" in bad[0]


@pytest.mark.parametrize(
    "content",
    [
        '"C:\\dir\\",x\n' * 5,  # a text that ends with a backslash
        '"C:\\dir\\",x\n' + '"say \\"a\\", b",x\n' * 5,
        '"say ""a"", \\b",x\n' + '"say \\"a\\", b",x\n' * 5,
    ],
)
def test_a_backslash_is_no_escape_without_evidence(content: str, tmp_path: Path) -> None:
    path = written(tmp_path, "text,label\n" + content)
    assert "escape" not in str(find_format(path, NEEDED, TableFormat()))
    rows, bad = read(path)
    assert len(rows) + len(bad) == content.count("\n")
    assert len(bad) == content.count('\\"a\\')
    assert rows[0]["text"] in ("C:\\dir\\", 'say "a", \\b')
    assert all('write a quote within quotes as "", not as \\"' in row for row in bad)


@pytest.mark.parametrize(
    "row",
    ['"foo" bar,A', '"a"b"c",A', r'"he said \"hi\" and ""bye""",A', '5" by 6",A'],
)
def test_other_quotes_in_a_file_with_escapes_are_bad_rows(row: str, tmp_path: Path) -> None:
    escaped = '"say \\"x\\", y",A\n' * 3
    rows, bad = read(written(tmp_path, f'text,label\n{escaped}{row}\n"",B\n"two\nlines",A\n'))
    assert [each["text"] for each in rows] == ['say "x", y'] * 3 + ["", "two\nlines"]
    assert len(bad) == 1
    assert "row 4 (line 5): its quotes do not pair up; write a quote within quotes" in bad[0]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.txt"])
def test_a_folder_in_place_of_a_table_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    rows = text_rows(tmp_path / name, "text")
    with pytest.raises(
        DataError, match=rf"{re.escape(name)} is (a folder; name a file|not a readable)"
    ):
        list(rows)


def test_a_pipe_in_place_of_a_table_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tsv")
    with pytest.raises(DataError, match=r"a\.tsv is a pipe, socket or device; name a file"):
        find_format(tmp_path / "a.tsv", NEEDED, TableFormat())


def test_an_escape_that_would_swallow_the_next_row_is_a_bad_row(tmp_path: Path) -> None:
    content = 'text,label\nplain,A\n"screen, 5\\"",B\n6\\",A\nplain,B\n'
    rows, bad = read(written(tmp_path, content))
    assert [row["text"] for row in rows] == ["plain", "plain"]
    assert len(bad) == 2
    assert 'row 2 (line 3): has \\", which may be text or an escape' in bad[0]


def test_a_backslash_before_a_quote_that_is_written_twice_is_text(tmp_path: Path) -> None:
    path = written(tmp_path, "text,label\n" + '"K\\""onig",x\n' * 9)
    rows, bad = read(path)
    assert not bad
    assert [row["text"] for row in rows] == ['K\\"onig'] * 9


def test_escapes_outside_of_quotes_are_named(tmp_path: Path) -> None:
    """They are also how LaTeX writes an umlaut."""
    path = written(tmp_path, 'text,label\nK\\"onig,x\n"K\\""onig",x\n')
    rows, bad = read(path)
    assert [row["text"] for row in rows] == ['K\\"onig']
    assert 'row 1 (line 2): has \\" outside of quotes, which may be text or an escape; ' in bad[0]
    assert bad[0].endswith("if it is text, set data.quoting=csv")
    assert [row["text"] for row in read(path, TableFormat(quoting="csv"))[0]] == ['K\\"onig'] * 2


def test_the_extra_field_of_a_row_is_explained(tmp_path: Path) -> None:
    _, bad = read(written(tmp_path, 'text,label\na,x,\n"a\\",b",x\n'))
    assert bad[0].endswith("has 3 fields where the header has 2; remove the delimiter at its end")
    assert bad[1].endswith(
        'has 3 fields where the header has 2; write a quote within quotes as "", not as \\"'
    )


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.csv", "{},x"),
        ("a.csv", '"{}",x'),
        ("a.csv", "{}"),
        ("a.jsonl", '{{"text": "{}", "label": "x"}}'),
        ("a.txt", "{}"),
    ],
)
def test_an_endless_line_is_one_bad_row(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("encodings", "rows", "csv_rows"):
        monkeypatch.setattr(f"datamodules.reading.{module}.MAX_LINE", 2000)
    monkeypatch.setattr("datamodules.reading.rows.MAX_CHARACTERS", 400)
    sound = line.format("b")
    if name == "a.csv":
        sound = "b,x"
    content = "\n".join(
        [*(["text,label"] if name == "a.csv" else []), line.format("a" * 5000), sound]
    )
    rows = list(text_rows(written(tmp_path, content, name), "text"))
    assert [type(row) for row in rows] == [BadRow, Row]
    assert "has 2,000 characters or more; at most 400 are read: shorten it" in str(rows[0])


def test_a_quote_that_is_never_closed_does_not_read_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.reading.csv_rows.MAX_LINE", 100)
    path = written(tmp_path, 'text,label\n"a,x\n' + "b,y\n" * 200)
    reader = CsvReader(path, find_format(path, NEEDED, TableFormat()), NEEDED, None, "", "")
    rows = reader.rows()
    assert "a stray quote is never closed" in str(next(rows))
    assert reader.taken < 40
    assert all(isinstance(row, Row) for row in rows)
    assert reader.taken == 202


def test_the_sample_of_a_format_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "MAX_LINE", 10)
    assert encodings.first_lines(iter(["abc\n"] * 50), 40) == ["abc\n"] * 3


@pytest.mark.parametrize(("encoding", "text"), [("koi8-r", "да"), ("iso-8859-2", "żółw")])
def test_a_guessed_encoding_shows_a_text(
    encoding: str, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(written(tmp_path, f"text,label\nplain,x\n{text},x\n".encode(encoding)))
    shown = text.encode(encoding).decode("cp1252")
    assert (
        f"it is read as Windows-1252, for example line 3: '{shown},x'; if that is wrong, set "
        "data.encoding=NAME"
    ) in caplog.text


def test_one_broken_byte_leaves_a_file_utf8(tmp_path: Path) -> None:
    path = written(tmp_path, "text,label\nnaïve café".encode() + b"\xff,x\nb,y\n")
    assert detect_encoding(path) == "utf-8"
    assert "is not UTF-8: byte 0xFF" in read(path)[1][0]


@pytest.mark.parametrize("first", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("second", ["utf-8", "utf-8-sig", "utf-16"])
def test_joined_files_lose_no_row_in_silence(first: str, second: str, tmp_path: Path) -> None:
    path = written(tmp_path, TABLE.encode(first) + TABLE.encode(second))
    try:
        rows, bad = read(path)
    except DataError as error:
        assert "is not valid UTF-16: truncated data" in str(error)  # noqa: PT017
    else:
        assert [row["text"] for row in rows[:2]] == ["a", "b"]
        assert bad


def test_null_characters_are_named(tmp_path: Path) -> None:
    _, bad = read(written(tmp_path, b"text,label\na\0b,x\nc,y\n" + b"\0" * 9))
    assert bad[0].startswith("train.csv, row 1 (line 2): has a null character; remove it, or if")
    assert len(bad) == 2


@pytest.mark.parametrize(("of_file", "needed"), [(DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED)])
def test_a_column_is_found_in_both_spellings_of_its_accents(
    of_file: str, needed: str, tmp_path: Path
) -> None:
    pd.DataFrame({"n": [1], of_file: ["a"]}).to_parquet(tmp_path / "a.parquet")
    written(tmp_path, f"n;{of_file}\n1;a\n", "a.csv")
    written(tmp_path, json.dumps({"n": 1, of_file: "a"}), "a.jsonl")
    for name in ("a.parquet", "a.csv", "a.jsonl"):
        (row,) = read_rows(tmp_path / name, [needed])
        assert isinstance(row, Row)
        assert row.values[needed] == "a"
