"""Masking and sentence pairs; each epoch draws them anew, from seed and epoch alone."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the extra keras is not installed")

import tensorflow as tf

from keras_bert.data.batching import Padding, epoch_batches, padding_share, sorted_batches
from keras_bert.data.masking import Masking
from keras_bert.data.pretraining_data import PretrainingData, split_into_pieces, unigram_entropy
from keras_bert.data.samples import sample_documents
from keras_bert.data.tokenizing import SPECIAL_TOKENS, encode, token_id, train_tokenizer
from keras_bert.errors import KerasBertError

DOCUMENTS = sample_documents(1, 60)
TOKENIZER = train_tokenizer([text for document in DOCUMENTS for text in document], 200)
SPECIAL = {token_id(TOKENIZER, token) for token in SPECIAL_TOKENS}
MASK = token_id(TOKENIZER, "[MASK]")
MASKING = Masking.of(TOKENIZER, 0.15)
ENDS = (token_id(TOKENIZER, "[CLS]"), token_id(TOKENIZER, "[SEP]"))


def data(*, next_sentence: bool = False, batch_size: int = 16, seed: int = 1) -> PretrainingData:
    pieces = split_into_pieces(DOCUMENTS, TOKENIZER, 32, next_sentence=next_sentence)
    return PretrainingData(pieces, MASKING, ENDS, next_sentence, batch_size, seed, Padding(8, 32))


def plain(batches: tf.data.Dataset) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    return list(batches.as_numpy_iterator())


def restored(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> np.ndarray:
    """The texts before they were masked."""
    ids = x["input_ids"].copy()
    rows, places = np.nonzero(y["chosen"])
    ids[rows, x["masked_positions"][rows, places]] = y["mlm"][rows, places]
    return ids


def test_masking_has_the_shares_of_bert() -> None:
    rng = np.random.default_rng(0)
    ordinary = np.setdiff1d(np.arange(200), sorted(SPECIAL))
    ids = rng.choice(ordinary, (400, 102)).astype(np.int32)
    ids[:, 0], ids[:, 101] = ENDS
    masked, positions, targets, chosen = (
        np.asarray(value) for value in MASKING(ids, np.array([3, 4], np.int32))
    )
    assert chosen.sum(axis=1).tolist() == [15] * 400  # 15 % of the 100 ordinary tokens
    rows, places = np.nonzero(chosen)
    where = positions[rows, places]
    np.testing.assert_array_equal(targets[rows, places], ids[rows, where])
    assert len(set(zip(rows.tolist(), where.tolist(), strict=True))) == 6000
    new, old = masked[rows, where], ids[rows, where]
    n = len(new)
    for share, expected in (
        ((new == MASK).mean(), 0.8),
        ((new == old).mean(), 0.1),
        (((new != MASK) & (new != old)).mean(), 0.1),
    ):
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n) + 1 / len(
            ordinary
        )
    assert not set(new[new != MASK].tolist()) & SPECIAL
    assert (
        len(set(new[(new != MASK) & (new != old)].tolist())) > 100
    )  # random tokens come from the whole vocabulary
    untouched = np.ones_like(ids, dtype=bool)
    untouched[rows, where] = False
    np.testing.assert_array_equal(masked[untouched], ids[untouched])
    counts = np.bincount(where, minlength=102)
    assert counts[0] == counts[101] == 0
    assert counts[1:101].min() > 20  # every position is chosen, 60 times on average


def test_special_tokens_are_never_chosen() -> None:
    word = next(iter(set(range(200)) - SPECIAL))
    ids = np.array(
        [[ENDS[0], word, ENDS[1], word, ENDS[1], 0, 0, 0], [ENDS[0], 1, MASK, ENDS[1], 0, 0, 0, 0]],
        np.int32,
    )
    seen = Counter[int]()
    for draw in range(30):
        masked, positions, targets, chosen = (
            np.asarray(value) for value in MASKING(ids, np.array([draw, 0], np.int32))
        )
        assert chosen.sum(axis=1).tolist() == [1, 0]  # at least one; none if all are special tokens
        seen[int(positions[0][chosen[0] > 0][0])] += 1
        assert targets[0][chosen[0] > 0].tolist() == [word]
        np.testing.assert_array_equal(masked[1], ids[1])
    assert set(seen) == {1, 3}


@pytest.mark.parametrize("next_sentence", [False, True])
def test_an_epoch_has_every_example_once_and_masks_it_anew(next_sentence: bool) -> None:
    source = data(next_sentence=next_sentence)
    epochs = [plain(source.training([epoch])) for epoch in (0, 1, 0)]
    assert [len(epoch) for epoch in epochs] == [source.steps] * 3
    for (x, y), (again, target) in zip(epochs[0], epochs[2], strict=True):
        for name in x:
            np.testing.assert_array_equal(x[name], again[name])
        np.testing.assert_array_equal(y["mlm"], target["mlm"])
    texts = [
        [tuple(row[row > 0].tolist()) for x, y in epoch for row in restored(x, y)]
        for epoch in epochs
    ]
    if next_sentence:
        assert len(texts[0]) == len(texts[1]) == len(source.pieces.first)
    else:
        assert Counter(texts[0]) == Counter(texts[1])
        ids = encode(TOKENIZER, [text for document in DOCUMENTS for text in document])
        assert Counter(texts[0]) == Counter((ENDS[0], *text, ENDS[1]) for text in ids)
    masked = [sum(int((x["input_ids"] == MASK).sum()) for x, _ in epoch) for epoch in epochs]
    assert min(masked) > 0
    hidden = [
        Counter(np.concatenate([y["mlm"][y["chosen"] > 0] for _, y in epoch]).tolist())
        for epoch in epochs
    ]
    assert hidden[0] != hidden[1]


def test_validation_is_always_masked_the_same_way() -> None:
    first, second = (plain(data().validation()) for _ in range(2))
    for (x, y), (x_again, y_again) in zip(first, second, strict=True):
        np.testing.assert_array_equal(x["input_ids"], x_again["input_ids"])
        np.testing.assert_array_equal(y["mlm"], y_again["mlm"])
    other = plain(data(seed=2).validation())
    assert any(
        not np.array_equal(a[0]["input_ids"], b[0]["input_ids"])
        for a, b in zip(first, other, strict=True)
    )


def test_an_epoch_does_not_depend_on_earlier_epochs() -> None:
    """A run that resumes with epoch 1 therefore sees the same batches."""
    source = data()
    together, alone = plain(source.training([0, 1]))[source.steps :], plain(source.training([1]))
    assert len(together) == len(alone)
    for (x, _), (expected, _) in zip(together, alone, strict=True):
        np.testing.assert_array_equal(x["input_ids"], expected["input_ids"])


def test_half_of_the_pairs_are_consecutive() -> None:
    pieces = split_into_pieces(sample_documents(2, 300), TOKENIZER, 64, next_sentence=True)
    assert len(pieces.first) == 900  # three of four sentences have a next one
    second, label, lengths = pieces.draw((1, 0), next_sentence=True)
    assert abs(label.mean() - 0.5) < 0.08
    true = label == 0
    np.testing.assert_array_equal(second[true], pieces.first[true] + 1)
    assert (pieces.document[second[~true]] != pieces.document[pieces.first[~true]]).all()
    assert len(set(pieces.document[second[~true]].tolist())) > 200  # of 300 documents, in 450 draws
    np.testing.assert_array_equal(
        lengths, pieces.store.lengths[pieces.first] + pieces.store.lengths[second]
    )
    again, _, _ = pieces.draw((1, 1), next_sentence=True)
    assert (again != second).mean() > 0.3


def test_pairs_that_are_not_consecutive_join_two_documents() -> None:
    pieces = split_into_pieces(DOCUMENTS[:3], TOKENIZER, 64, next_sentence=True)
    seen = set()
    for epoch in range(40):
        second, label, _ = pieces.draw((1, epoch), next_sentence=True)
        theirs, own = pieces.document[second[label == 1]], pieces.document[pieces.first[label == 1]]
        assert (theirs != own).all()
        seen |= set(second[label == 1].tolist())
    assert seen == set(range(12))


def test_a_single_text_is_also_masked_anew() -> None:
    pieces = split_into_pieces(DOCUMENTS[:1], TOKENIZER, 128, next_sentence=False)
    source = PretrainingData(pieces, MASKING, ENDS, False, 16, 1, Padding(8, 128))
    drawn = [
        plain(source.training([epoch]))[0][0]["masked_positions"].tobytes() for epoch in range(4)
    ]
    assert len(set(drawn)) == 4


def test_pairs_have_two_segments_with_ids_0_and_1() -> None:
    for x, y in plain(data(next_sentence=True).training([0])):
        ids, segments = restored(x, y), x["token_type_ids"]
        assert ids.shape[1] % 8 == 0
        for row, parts in zip(ids, segments, strict=True):
            ends = np.flatnonzero(row == ENDS[1])
            assert len(ends) == 2
            expected = np.zeros_like(row)
            expected[ends[0] + 1 : ends[1] + 1] = 1
            np.testing.assert_array_equal(parts, expected)
            assert row[0] == ENDS[0]
            assert not row[ends[1] + 1 :].any()


def test_nothing_of_a_long_text_is_lost() -> None:
    text = " ".join(DOCUMENTS[0] * 10)
    ids = next(encode(TOKENIZER, [text]))
    pieces = split_into_pieces([[text]], TOKENIZER, 16, next_sentence=False)
    assert pieces.store.lengths.max() == 14
    assert pieces.store.ragged.flat_values.numpy().tolist() == ids


@pytest.mark.parametrize(
    ("documents", "maxlen", "next_sentence", "message"),
    [
        ([["a text"]], 2, False, "maxlen 2 is too short"),
        (
            [["one."], ["two."]],
            32,
            True,
            "give at least two documents, one of them with two sentences",
        ),
        ([["One. Two."]], 32, True, "give at least two documents, one of them with two sentences"),
    ],
)
def test_unusable_texts_are_rejected(
    documents: Any, maxlen: int, next_sentence: bool, message: str
) -> None:
    with pytest.raises(KerasBertError, match=message):
        split_into_pieces(documents, TOKENIZER, maxlen, next_sentence=next_sentence)


def test_padding_stays_within_maxlen() -> None:
    pieces = split_into_pieces([[" ".join(DOCUMENTS[0] * 10)]], TOKENIZER, 20, next_sentence=False)
    source = PretrainingData(pieces, MASKING, ENDS, False, 4, 1, Padding(8, 20))
    assert max(x["input_ids"].shape[1] for x, _ in plain(source.training([0]))) == 20


def test_unigram_entropy_is_that_of_the_chosen_tokens() -> None:
    y = {"mlm": np.array([[7, 7, 8, 9]]), "chosen": np.array([[1.0, 1.0, 1.0, 0.0]], np.float32)}
    batches = tf.data.Dataset.from_tensors(({"input_ids": np.zeros((1, 4))}, y))
    assert unigram_entropy(batches) == pytest.approx(
        -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    )


def test_batches_group_texts_by_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1003)
    batches = epoch_batches(lengths, 32, np.random.default_rng(5))
    assert len(batches) == 32
    assert sorted(np.concatenate(batches).tolist()) == list(range(1003))
    at_random = np.array_split(np.random.default_rng(1).permutation(1003), 32)
    assert (
        padding_share(lengths, batches, Padding(1, 100))
        < 0.05
        < 0.4
        < padding_share(lengths, at_random, Padding(1, 100))
    )
    means = [lengths[rows].mean() for rows in batches]
    assert means != sorted(means)  # short ones do not come first
    assert (
        np.concatenate(sorted_batches(lengths, 32)).tolist()
        == np.argsort(lengths, kind="stable").tolist()
    )
