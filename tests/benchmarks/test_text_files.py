"""The benchmark runs, and both sides have the same tokens."""

import argparse
from pathlib import Path

import numpy as np

from benchmarks import text_files
from datamodules.texts.tokenizing import vocabulary_tokenizer


def test_it_measures_time_and_memory() -> None:
    given = argparse.Namespace(texts=60, repetitions=2, tokenizer=None)
    (row,) = text_files.measure(given)
    assert [goal.what for goal in row.goals] == ["times the default", "times the memory of the ids"]
    assert list(row.sides) == ["Thaw", "default"]


def test_both_sides_have_the_same_tokens(tmp_path: Path) -> None:
    tokenizer = vocabulary_tokenizer(text_files.write_texts(tmp_path, 60), 2_000)
    data = text_files.read_with_thaw(tmp_path, tokenizer)
    ours = data.tokenized["train"]
    ids, lengths = text_files.read_with_pandas(tmp_path, tokenizer)
    # Thaw writes out emoji.
    plain = np.array([text.isascii() for text in data.splits["train"].texts])
    assert plain.sum() > 5
    assert np.array_equal(ours.lengths[plain], lengths[plain])
    starts = np.cumsum(lengths) - lengths
    for row in np.flatnonzero(plain):
        assert np.array_equal(ours[row][0].numpy(), ids[starts[row] : starts[row] + lengths[row]])
