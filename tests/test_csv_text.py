"""CSV that every reader splits into the same rows."""

import csv
import io
from pathlib import Path

import pandas as pd
import pytest

from datamodules.reading.rows import Row
from datamodules.reading.tables import read_rows
from engine.prediction.table_writer import TableWriter
from run_folders.csv_text import csv_writer

TEXTS = ["a\rb", "c\r", "\r", 'd "e"', "f,g", "h\ni", "plain", ""]


def test_carriage_returns_are_quoted() -> None:
    stream = io.StringIO()
    csv_writer(stream).writerows([text, "x"] for text in TEXTS)
    text = stream.getvalue()
    assert [row[0] for row in csv.reader(io.StringIO(text, newline=""))] == TEXTS
    assert "plain,x\n" in text
    assert "\r\n" not in text


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_predictions_with_carriage_returns_are_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with TableWriter(path) as writer:
        writer.write([{"text": text, "prediction": "fake"} for text in TEXTS])
    frame = pd.read_csv(path, sep="\t" if suffix == ".tsv" else ",", keep_default_na=False)
    assert frame["text"].tolist() == TEXTS
    rows = list(read_rows(path, ["text"]))
    assert [row.values["text"] for row in rows if isinstance(row, Row)] == TEXTS
