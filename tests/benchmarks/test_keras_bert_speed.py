"""What the peers are given: the same vocabulary, and the same share of tokens to guess. Nothing here needs TensorFlow."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from benchmarks import keras_bert_speed
from benchmarks.rows import arguments


def test_peers_guess_the_same_share_of_the_same_tokens(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(200)]
    numbers = {word: i for i, word in enumerate((*keras_bert_speed._SPECIAL, *words))}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    lengths = (1, 20, 200)
    rows = [" ".join(words[:n]) for n in lengths]
    (tmp_path / "train.csv").write_text("tweet\n" + "\n".join(rows) + "\n", encoding="utf-8")
    inputs, hidden, weights = keras_bert_speed.plain_data(tmp_path / "train.csv", str(tmp_path), 3)
    assert weights.sum(axis=1).tolist() == [
        1,
        3,
        19,
    ]  # 15 %, one at least, of what fits into 128 with [CLS] and [SEP]
    original = inputs["input_ids"].copy()
    for i, size in enumerate((1, 20, 126)):
        n = int(weights[i].sum())
        places = inputs["positions"][i, :n]
        assert len(set(places.tolist())) == n
        original[i, places] = hidden[i, :n]
        assert original[i].tolist() == [
            numbers["[CLS]"],
            *range(5, 5 + size),
            numbers["[SEP]"],
            *[0] * (126 - size),
        ]
    assert (inputs["input_ids"] == numbers["[MASK]"]).sum() > 0
    assert np.all(hidden[weights == 0] == 0)


def test_without_the_table_it_says_where_it_looked(tmp_path: Path) -> None:
    given = arguments(None, repetitions=1).parse_args(["--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"train\.csv does not exist"):
        keras_bert_speed.measure(given)
