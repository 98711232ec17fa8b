"""Formats of tables are found or set; odd files of real people are read or refused by name."""

import csv
from pathlib import Path

import pandas as pd
import pytest

from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.formats import FoundFormat, TableFormat, find_format, unused_settings
from datamodules.reading.rows import MAX_CHARACTERS, Row
from datamodules.reading.tables import read_rows
from tests.datamodules.test_tables import written

NEEDED = ["text", "label"]


def read(
    path: Path, table_format: TableFormat | FoundFormat = TableFormat()
) -> tuple[list[dict[str, str]], list[str]]:
    rows = list(read_rows(path, NEEDED, table_format=table_format))
    good = [row.values for row in rows if isinstance(row, Row)]
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert len(good) + len(bad) == len(rows)
    return good, [str(row) for row in bad]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("id;text;label\n1;a, b;real\n2;c;fake\n", "UTF-8, delimiter ';', quoting csv"),
        ("sep=;\nid;text;label\n1;a, b;real\n2;c;fake\n", "UTF-8, delimiter ';', quoting csv"),
        ("id|text|label\n1|a, b|real\n2|c|fake\n", "UTF-8, delimiter '|', quoting csv"),
        ("id\ttext\tlabel\n1\ta, b\treal\n2\tc\tfake\n", "UTF-8, delimiter tab, quoting csv"),
        (' id , "text", label\n1, "a, b", real\n2, c, fake\n', "UTF-8, delimiter ',', quoting csv"),
        ("id,text,label,,\n1,\"a, b\",real,,\n2,c,fake,,\n", "UTF-8, delimiter ',', quoting csv"),
        ("id,text,label\r1,\"a, b\",real\r2,c,fake\r", "UTF-8, delimiter ',', quoting csv"),
    ],
)  # fmt: skip
def test_the_delimiter_is_found(content: str, shown: str, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    assert str(find_format(path, NEEDED, TableFormat())) == shown
    rows, bad = read(path)
    assert not bad
    assert [(row["text"], row["label"].strip()) for row in rows] == [
        ("a, b", "real"),
        ("c", "fake"),
    ]


def test_a_wrong_delimiter_is_named_and_can_be_set(tmp_path: Path) -> None:
    path = written(tmp_path, "id^text^label\n1^a^real\n")
    with pytest.raises(
        DataError, match="no column 'text'; it has id^text^label".replace("^", r"\^")
    ):
        read(path)
    assert read(path, TableFormat(delimiter="^"))[0][0]["text"] == "a"
    semicolons = written(tmp_path, "id;text;label\n1;a;real\n")
    with pytest.raises(DataError, match=r"read with the delimiter ',': .* set data\.delimiter="):
        read(semicolons, TableFormat(delimiter=","))


@pytest.mark.parametrize("value", ["", ";;", '"', "a", "\n"])
def test_an_unusable_delimiter_is_rejected(value: str) -> None:
    with pytest.raises(DataError, match=r"data\.delimiter: received .*; give one character"):
        TableFormat(delimiter=value)


def test_quotes_that_are_text_are_found(tmp_path: Path) -> None:
    texts = [f'"Part {i}" of "it"' if i % 3 else f"plain {i}" for i in range(60)]
    path = written(
        tmp_path, "text\tlabel\n" + "".join(f"{text}\tx\n" for text in texts), "train.tsv"
    )
    assert str(find_format(path, NEEDED, TableFormat())).endswith("quoting none")
    rows, bad = read(path)
    assert not bad
    assert [row["text"] for row in rows] == texts


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_few_stray_quotes_do_not_change_how_the_others_are_read(
    quoting: int, tmp_path: Path
) -> None:
    path = tmp_path / "train.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=quoting).writerows(  # type: ignore[arg-type]
            [["id", "text", "label"], *([i, f'he said "{i}", then left', "x"] for i in range(40))]
        )
    lines = path.read_text().splitlines(keepends=True)
    lines[10] = '9,"Stray" text "here",x\n'
    path.write_text("".join(lines))
    rows, bad = read(path)
    assert len(rows) == 39
    assert rows[20]["text"] == 'he said "21", then left'
    assert "quotes do not pair up" in bad[0]
    assert "if quotes are part of the texts, set data.quoting=none" in bad[0]


@pytest.mark.parametrize("head", ["text,label", "id,text,label,n"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("first", [0, 5, 27])
def test_a_quote_that_swallows_rows_is_found_whatever_the_columns(
    head: str, suffix: str, first: int, tmp_path: Path
) -> None:
    names = head.split(",")
    texts = [f"text number {i}" for i in range(30)]
    texts[first], texts[first + 2] = '"' + texts[first], texts[first + 2] + '"'
    values = {"label": "x", "n": "2.5"}
    lines = [
        ",".join({"id": f"t{i}", "text": text, **values}[name] for name in names)
        for i, text in enumerate(texts)
    ]
    content = "\n".join([head, *lines, ""]).replace(",", "\t" if suffix == ".tsv" else ",")
    path = written(tmp_path, content, f"train{suffix}")
    rows, bad = read(path)
    assert [row["text"] for row in rows] == texts[:first] + texts[first + 1 :]
    assert len(bad) == 1
    assert f"row {first + 1} (line {first + 2})" in bad[0]
    assert [row["text"] for row in read(path, TableFormat(quoting="none"))[0]] == texts


def test_texts_of_several_lines_in_one_column_are_read_if_the_user_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, 'text\none\n"two\nlines"\n')
    rows = list(read_rows(path, ["text"]))
    assert [type(row) for row in rows] == [Row, BadRow, Row]
    assert "if this text has several lines, set data.quoting=csv" in str(rows[1])
    rows = list(read_rows(path, ["text"], table_format=TableFormat(quoting="csv")))
    assert [row.values["text"] for row in rows if isinstance(row, Row)] == ["one", "two\nlines"]


def test_encodings_are_found_or_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = "id,text,label\n1,naïve café,real\n"
    for encoding in ("utf-16-le", "utf-16-be", "utf-32", "utf-16"):
        rows, _ = read(written(tmp_path, content.encode(encoding)))
        assert rows[0]["text"] == "naïve café"
    guess = "train.csv is not UTF-8; it is read as UTF-16-LE without a mark, for example line 1: "
    assert f"{guess}'id,text,label'; if that is wrong, set data.encoding=NAME" in caplog.text
    path = written(tmp_path, "id,text,label\n1,Привет,real\n".encode("cp1251"))
    _, bad = read(path)
    assert bad[0].endswith("is not UTF-8: byte 0xCF; if that is wrong, set data.encoding=NAME")
    assert read(path, TableFormat(encoding="cp1251"))[0][0]["text"] == "Привет"
    _, bad = read(written(tmp_path, content.encode()), TableFormat(encoding="ascii"))
    assert "is not ASCII: byte 0xC3" in bad[0]


@pytest.mark.parametrize("name", ["klingon", "", "rot13", "base64"])
def test_an_unknown_encoding_is_rejected(name: str) -> None:
    with pytest.raises(DataError, match=r"data\.encoding: received '.*'; give one of Python's"):
        TableFormat(encoding=name)


def test_long_fields_are_read_and_too_long_ones_are_named(tmp_path: Path) -> None:
    path = written(
        tmp_path, f"id,text,label\n1,{'a' * 200_000},x\n2,{'b' * MAX_CHARACTERS},x\n3,c,x\n"
    )
    rows, bad = read(path)
    assert [len(row["text"]) for row in rows] == [200_000, 1]
    assert "row 2 (line 3): has 4,000,002 characters; at most 4,000,000 are read" in bad[0]


def test_a_repeated_header_is_no_row(tmp_path: Path) -> None:
    _, bad = read(written(tmp_path, "id,text,label\n1,a,x\nid,text,label\n2,b,x\n"))
    assert bad == ["train.csv, row 2 (line 3): repeats the header; remove it"]


def test_a_carriage_return_outside_of_quotes_is_named(tmp_path: Path) -> None:
    rows, bad = read(written(tmp_path, b"id,text,label\n1,a\rb,x\n2,c,x\n"))
    assert [row["text"] for row in rows] == ["c"]
    assert "row 1 (line 2): has a carriage return outside of quotes" in bad[0]


def test_duplicate_keys_and_huge_numbers_of_jsonl_are_named(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "label": "x"}',
        '{"text": "a", "label": "x", "text": "b"}',
        '{"text": "a", "label": ' + "9" * 5000 + "}",
        '{"text": ' + "[" * 100_000 + "}",
    ]
    rows, bad = read(written(tmp_path, "\n".join(lines), "train.jsonl"))
    assert len(rows) == 1
    assert "it names 'text' twice" in bad[0]
    assert len(bad) == 3


def test_lists_and_missing_values_of_parquet_are_kept_for_the_checks(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", None, "c"],
            "label": pd.array([1, None, 0], "Int64"),
            "tags": [["x"], None, []],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    rows, _ = read(tmp_path / "a.parquet")
    assert [row["label"] for row in rows] == [1, None, 0]
    rows = list(read_rows(tmp_path / "a.parquet", NEEDED, columns=NEEDED))
    assert [list(row.values) for row in rows if isinstance(row, Row)] == [NEEDED] * 3


def complete(row: dict[str, str]) -> bool:
    return row["label"] in ("pos", "neg")


def test_a_rare_value_does_not_hide_swallowed_rows(tmp_path: Path) -> None:
    """The values of the first rows do not know the category of the others."""
    lines = [f"sport,some words here {i}\n" for i in range(2500)]
    lines += ['news,"Yes we can\n', "news,first\n", "news,second\n", 'news,said he"\n']
    path = written(tmp_path, "topic,text\n" + "".join(lines + ["news,plain\n"] * 50))
    rows = list(read_rows(path, ["text"]))
    assert len(rows) == 2554
    assert [row.number for row in rows if isinstance(row, BadRow)] == [2501]


@pytest.mark.parametrize("known", [complete, None])
def test_mails_with_a_footer_are_read(known: object, tmp_path: Path) -> None:
    texts = [
        f"Dear all {i},\nnews.\nKind regards, Bob" if i % 5 == 0 else f"short, {i}"
        for i in range(500)
    ]
    frame = pd.DataFrame({"text": texts, "label": ["pos", "neg"] * 250})
    frame.to_csv(tmp_path / "a.csv", index=False)
    rows = list(read_rows(tmp_path / "a.csv", NEEDED, known))  # type: ignore[arg-type]
    assert [row.values["text"] for row in rows if isinstance(row, Row)] == texts


def test_a_text_whose_lines_are_rows_is_read_if_the_user_says_so(tmp_path: Path) -> None:
    texts = [f"buy:\n3,apples\n4,pears {i}" for i in range(20)]
    pd.DataFrame({"id": range(20), "text": texts}).to_csv(tmp_path / "a.csv", index=False)
    assert isinstance(next(iter(read_rows(tmp_path / "a.csv", ["text"]))), BadRow)
    rows = read_rows(tmp_path / "a.csv", ["text"], table_format=TableFormat(quoting="csv"))
    assert [row.values["text"] for row in rows if isinstance(row, Row)] == texts


def test_empty_lines_of_one_column_are_rows(tmp_path: Path) -> None:
    rows = list(read_rows(written(tmp_path, "text\nfirst\n\nthird\n\n\n"), ["text"]))
    assert [type(row) for row in rows] == [Row, BadRow, Row]
    assert str(rows[1]) == "train.csv, row 2 (line 3): the line is empty"
    assert [row.number for row in rows] == [1, 2, 3]


def test_joined_files_are_named(tmp_path: Path) -> None:
    content = "text,label\na,x\n text , label\n\ufeffb,y\n"
    _, bad = read(written(tmp_path, content))
    assert "row 2 (line 3): repeats the header" in bad[0]
    assert "row 3 (line 4): begins with a byte order mark" in bad[1]


@pytest.mark.parametrize(
    ("encoding", "given"),
    [("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("utf-16", "utf-16-le"), ("utf-8", "utf-8-sig")],
)
def test_a_mark_is_no_part_of_the_header(encoding: str, given: str, tmp_path: Path) -> None:
    path = written(tmp_path, "text,label\nnaïve,x\n".encode(encoding))
    assert read(path, TableFormat(encoding=given))[0] == [{"text": "naïve", "label": "x"}]


def test_a_wrong_encoding_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, b"text,label\na,x\n")
    with pytest.raises(DataError, match=r"is not valid UTF-16: .*set data\.encoding=NAME"):
        read(path, TableFormat(encoding="utf-16"))
    with pytest.raises(DataError, match="received 'idna'"):
        TableFormat(encoding="idna")


def test_utf16_without_a_mark_is_found_in_other_scripts(tmp_path: Path) -> None:
    content = "id,text,label\n" + "".join(f"{i},{'漢字' * 40},x\n" for i in range(9))
    rows, bad = read(written(tmp_path, content.encode("utf-16-le")))
    assert not bad
    assert rows[0]["text"] == "漢字" * 40


def test_lines_before_the_header_and_unread_columns(tmp_path: Path) -> None:
    path = written(tmp_path, '\n"sep=;"\n\ntext;label;n;n;\na;x;1;2;3\n')
    rows = list(read_rows(path, NEEDED, columns=NEEDED))
    assert [(row.line, row.values["text"]) for row in rows if isinstance(row, Row)] == [(5, "a")]
    with pytest.raises(DataError, match="names 'n' 2 times"):
        list(read_rows(path, NEEDED))


def test_line_feeds_within_the_cells_of_an_old_mac(tmp_path: Path) -> None:
    rows, bad = read(written(tmp_path, b'text,label\r"a\nb",x\rc,y\rd,x\r'))
    assert not bad
    assert [row["text"] for row in rows] == ["a\nb", "c", "d"]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("a.txt", {"delimiter": ";"}, "--delimiter: .txt files have none; leave it out"),
        ("a.jsonl", {"quoting": "none"}, "--quoting: .jsonl files have none"),
        ("a.parquet", {"encoding": "utf-8"}, "--encoding: .parquet files have none"),
        ("a.csv", {"delimiter": ";", "encoding": "utf-8", "quoting": "csv"}, ""),
    ],
)
def test_settings_without_use_are_named(name: str, settings: dict[str, str], message: str) -> None:
    fault = unused_settings(Path(name), TableFormat(**settings, option="--"))  # type: ignore[arg-type]
    assert fault.startswith(message)
    assert bool(fault) == bool(message)


def test_late_damage_names_the_option_of_the_command_line(tmp_path: Path) -> None:
    content = "text,label\n" + "a,x\n" * 60_000  # more than what is read to find the format
    path = written(tmp_path, content.encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"or set --encoding NAME$"):
        read(path, TableFormat(option="--"))
