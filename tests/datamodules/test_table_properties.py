"""Tables in every dialect come back cell by cell, or the row is named."""

import csv
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.formats import TableFormat
from datamodules.reading.rows import Row
from datamodules.reading.tables import read_rows
from run_folders.csv_text import csv_writer

COLUMNS = ["id", "text", "label"]
# Characters that readers of tables get wrong, beside plain letters.
LETTERS = "ab \"',;\t|\r\n\\=0é😷\u2028\x0b"
CELLS = st.text(LETTERS, max_size=12)
ESCAPABLE = st.text(LETTERS.replace("\\", ""), max_size=12)  # a backslash stays one without quotes
TABLES = st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=8)
FAST = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def read(content: bytes, name: str, table_format: TableFormat) -> list[Row | BadRow]:
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        return list(read_rows(path, ["text"], table_format=table_format))


def check(
    rows: list[tuple[str, ...]],
    columns: list[str],
    content: bytes,
    name: str,
    table_format: TableFormat,
) -> None:
    """Assert that each row comes back, or that the file or a row is refused."""
    try:
        found = read(content, name, table_format)
    except DataError:
        return
    if any(isinstance(row, BadRow) for row in found):
        numbers = [row.number for row in found]
        assert numbers == list(range(1, len(found) + 1))
        return
    cells = [tuple(row.values[column] for column in columns) for row in found]  # type: ignore[union-attr]
    assert cells == rows


def without_last_return(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Remove carriage returns at the end of rows, which older Python does not quote.

    They would be parts of the line ends.
    """
    return [(*row[:-1], row[-1].rstrip("\r")) for row in rows]


@FAST
@given(
    TABLES,
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.booleans(),
)
def test_tables_of_the_csv_module(
    rows: list[tuple[str, ...]],
    delimiter: str,
    quoting: int,
    end: str,
    encoding: str,
    is_set: bool,
) -> None:
    rows = without_last_return(rows)
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerows([COLUMNS, *rows])
    table_format = TableFormat(delimiter=delimiter, quoting="csv") if is_set else TableFormat()
    check(rows, COLUMNS, stream.getvalue().encode(encoding), "a.csv", table_format)


@FAST
@given(
    st.lists(st.tuples(ESCAPABLE, ESCAPABLE, ESCAPABLE), min_size=1, max_size=8),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_tables_with_escaped_quotes(
    rows: list[tuple[str, ...]], delimiter: str, quoting: int
) -> None:
    rows = without_last_return(rows)
    stream = io.StringIO()
    options = {"delimiter": delimiter, "quoting": quoting, "lineterminator": "\n"}
    writer = csv.writer(stream, escapechar="\\", doublequote=False, **options)  # type: ignore[arg-type]
    writer.writerows([COLUMNS, *rows])
    check(rows, COLUMNS, stream.getvalue().encode(), "a.csv", TableFormat())


@FAST
@given(st.lists(st.tuples(CELLS), min_size=1, max_size=8), st.sampled_from([".csv", ".tsv"]))
def test_tables_of_one_column(rows: list[tuple[str, ...]], suffix: str) -> None:
    stream = io.StringIO()
    csv_writer(stream, "\t" if suffix == ".tsv" else ",").writerows([["text"], *rows])
    check(rows, ["text"], stream.getvalue().encode(), f"a{suffix}", TableFormat())


@FAST
@given(TABLES, st.sampled_from([",", ";", "\t"]))
def test_tables_of_pandas(rows: list[tuple[str, ...]], delimiter: str) -> None:
    rows = without_last_return(rows)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    content = frame.to_csv(index=False, sep=delimiter)
    check(rows, COLUMNS, content.encode(), "a.csv", TableFormat())


@FAST
@given(TABLES)
def test_tables_of_arrow(rows: list[tuple[str, ...]]) -> None:
    table = pa.table({name: [row[k] for row in rows] for k, name in enumerate(COLUMNS)})
    text, parquet = io.BytesIO(), io.BytesIO()
    pyarrow.csv.write_csv(table, text)
    check(rows, COLUMNS, text.getvalue(), "a.csv", TableFormat())
    pq.write_table(table, parquet)
    found = read(parquet.getvalue(), "a.parquet", TableFormat())
    assert [tuple(row.values.values()) for row in found] == rows  # type: ignore[union-attr]


@FAST
@given(TABLES)
def test_jsonl(rows: list[tuple[str, ...]]) -> None:
    lines = [json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) for row in rows]
    found = read("\n".join(lines).encode(), "a.jsonl", TableFormat())
    assert [tuple(row.values.values()) for row in found] == rows  # type: ignore[union-attr]


@FAST
@given(TABLES, st.sampled_from([",", "\t"]))
def test_what_is_written_without_quoting_is_read_without_quoting(
    rows: list[tuple[str, ...]], delimiter: str
) -> None:
    plain = [
        tuple("".join(c for c in cell if c not in "\r\n" + delimiter) for cell in r) for r in rows
    ]
    content = "\n".join(delimiter.join(row) for row in [tuple(COLUMNS), *plain])
    table_format = TableFormat(delimiter=delimiter, quoting="none")
    check(plain, COLUMNS, content.encode(), "a.csv", table_format)
