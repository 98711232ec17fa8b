"""The baselines' input: Thaw's vocabulary, and the same share of masked tokens. Needs no TensorFlow."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from benchmarks import keras_bert_speed
from benchmarks.rows import arguments


def test_baselines_predict_the_same_share_of_tokens(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(200)]
    token_ids = {word: i for i, word in enumerate((*keras_bert_speed._SPECIAL, *words))}
    tokenizer = Tokenizer(WordLevel(token_ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    lengths = (1, 20, 200)
    rows = [" ".join(words[:n]) for n in lengths]
    (tmp_path / "train.csv").write_text("tweet\n" + "\n".join(rows) + "\n", encoding="utf-8")
    inputs, hidden, weights = keras_bert_speed.plain_data(tmp_path / "train.csv", str(tmp_path), 3)
    # 15 % of the tokens, at least one. With [CLS] and [SEP], 126 of them fit into 128.
    assert weights.sum(axis=1).tolist() == [1, 3, 19]
    original = inputs["input_ids"].copy()
    for i, size in enumerate((1, 20, 126)):
        n = int(weights[i].sum())
        places = inputs["positions"][i, :n]
        assert len(set(places.tolist())) == n
        original[i, places] = hidden[i, :n]
        assert original[i].tolist() == [
            token_ids["[CLS]"],
            *range(5, 5 + size),
            token_ids["[SEP]"],
            *[0] * (126 - size),
        ]
    assert (inputs["input_ids"] == token_ids["[MASK]"]).sum() > 0
    assert np.all(hidden[weights == 0] == 0)


def test_a_missing_table_is_reported_with_its_path(tmp_path: Path) -> None:
    given = arguments(None, repetitions=1).parse_args(["--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"train\.csv does not exist"):
        keras_bert_speed.measure(given)
