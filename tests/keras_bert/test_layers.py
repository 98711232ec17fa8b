"""Each layer by itself: formula, mask, errors, saving and loading."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the extra keras is not installed")

import keras
import tensorflow as tf

from keras_bert.network.attention import MultiHeadAttention
from keras_bert.network.embedding import BertEmbedding
from keras_bert.network.encoder import AddNorm, EncoderBlock, FeedForward, gelu
from keras_bert.network.heads import MaskedLMHead, Pooler
from keras_bert.network.model import create_BERT, settings_of
from keras_bert.network.tasks import Classifier, PretrainingModel

RNG = np.random.default_rng(0)
IDS = np.array([[2, 5, 6, 3, 0, 0], [2, 7, 8, 9, 9, 3]], dtype=np.int32)


def small_bert(**more: Any) -> keras.Model:
    return create_BERT(50, 16, 32, 2, 4, 64, **more)


def inputs(ids: np.ndarray = IDS, **more: Any) -> dict[str, Any]:
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), **more}


def test_gelu_is_x_times_the_normal_distribution() -> None:
    x = np.linspace(-6, 6, 101).astype(np.float32)
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    np.testing.assert_allclose(gelu(x), exact, atol=2e-6)
    error = np.abs(np.asarray(gelu(x, approximate=True)) - exact).max()
    assert 1e-5 < error < 5e-4  # a different function with close values


def test_attention_equals_its_formula() -> None:
    layer = MultiHeadAttention(8, 2)
    hidden = RNG.normal(size=(2, 5, 8)).astype(np.float32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    layer(hidden)
    for variable in layer.weights:
        variable.assign(RNG.normal(size=variable.shape))
    output, weights = layer(hidden, mask=mask, return_attention_scores=True)

    def dense(part: Any, x: np.ndarray) -> np.ndarray:
        return x @ np.asarray(part.kernel, np.float64) + np.asarray(part.bias)

    query, key, value = (dense(part, hidden) for part in (layer.query, layer.key, layer.value))
    expected = np.empty_like(query)
    for text in range(2):
        real = mask[text]
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            scores = query[text, :, part] @ key[text, real, part].T / 2
            shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            np.testing.assert_allclose(np.asarray(weights)[text, head][:, real], shares, atol=1e-5)
            expected[text, :, part] = shares @ value[text, real, part]
    np.testing.assert_allclose(
        output, dense(layer.output_projection, expected), rtol=1e-4, atol=1e-4
    )
    assert not np.asarray(weights)[0, :, :, 3:].any()


def test_dropout_is_before_the_sum() -> None:
    """Each token has mean 0 and deviation 1, which dropout after the norm would change."""
    layer = AddNorm(drop_rate=0.5)
    a, b = RNG.normal(size=(2, 3, 4, 64)).astype(np.float32)
    normed = np.asarray(layer(a, b, training=True))
    np.testing.assert_allclose(normed.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(normed.std(axis=-1), 1, atol=1e-4)
    assert not np.allclose(normed, layer(a, b, training=False))
    whole = a + b
    expected = (whole - whole.mean(-1, keepdims=True)) / whole.std(-1, keepdims=True)
    np.testing.assert_allclose(layer(a, b), expected, atol=1e-5)
    np.testing.assert_allclose(
        layer(np.zeros_like(a), b, training=True), layer(np.zeros_like(a), b), atol=1e-6
    )


@pytest.mark.parametrize("longer", [1, 10])
def test_real_tokens_do_not_depend_on_the_padding_after_them(longer: int) -> None:
    bert = small_bert()
    for variable in bert.weights:
        variable.assign(variable + RNG.normal(size=variable.shape) * 0.1)
    padded = np.pad(IDS, ((0, 0), (0, longer)))
    for model in (
        bert,
        Classifier(bert, 3, gru_units=8),
        Classifier(bert, 3, gru_units=8, frozen=True),
    ):
        short, long = (model(inputs(ids)) for ids in (IDS, padded))
        if model is bert:
            np.testing.assert_allclose(
                long["sequence_output"][:, :6][IDS > 0],
                short["sequence_output"][IDS > 0],
                atol=1e-5,
            )
            np.testing.assert_allclose(long["pooled_output"], short["pooled_output"], atol=1e-5)
        else:
            np.testing.assert_allclose(long, short, atol=1e-5)


def test_the_mask_is_passed_on() -> None:
    hidden = small_bert()(inputs())["sequence_output"]
    np.testing.assert_array_equal(hidden._keras_mask, IDS != 0)


def test_attention_weights_can_be_returned() -> None:
    scores = small_bert(return_attention_scores=True)(inputs())["attention_scores"]
    assert [tuple(layer.shape) for layer in scores] == [(2, 4, 6, 6)] * 2
    np.testing.assert_allclose(np.sum(scores[0], axis=-1), 1, atol=1e-6)


def test_every_layer_can_be_saved_and_loaded(tmp_path: Path) -> None:
    """All of them in one functional model, loaded in safe mode."""
    ids = keras.Input((None,), dtype="int32")
    embedding = BertEmbedding(50, 16, 8, drop_rate=0.2, name="embedding")
    hidden = embedding(ids)
    attended = MultiHeadAttention(8, 2, 0.1, name="attention")(hidden)
    normed = AddNorm(0.3, 1e-6, name="norm")(attended, hidden)
    block = EncoderBlock(8, 2, 16, approximate=True, name="block")(
        FeedForward(8, 12, approximate=True, name="ffn")(normed)
    )
    model = keras.Model(
        ids, [Pooler(8, name="pooler")(block), MaskedLMHead(embedding, name="head")(block)]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for before, after in zip(model(IDS), loaded(IDS), strict=True):
        np.testing.assert_array_equal(before, after)
    for layer in model.layers:
        assert loaded.get_layer(layer.name).get_config().keys() == layer.get_config().keys()
    assert loaded.get_layer("norm").drop_rate == 0.3
    assert loaded.get_layer("block").settings["approximate"] is True
    assert loaded.get_layer("head").embedding is loaded.get_layer("embedding")


@pytest.mark.parametrize("next_sentence", [False, True])
def test_pretraining_model_has_tied_weights_after_loading(
    tmp_path: Path, next_sentence: bool
) -> None:
    model = PretrainingModel(small_bert(approximate_gelu=True), next_sentence=next_sentence)
    x = inputs(masked_positions=np.array([[1], [2]], dtype=np.int32))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    before, after = model(x), loaded(x)
    assert set(before) == set(after) == ({"mlm", "nsp"} if next_sentence else {"mlm"})
    np.testing.assert_array_equal(before["mlm"], after["mlm"])
    assert settings_of(loaded.bert) == settings_of(model.bert)
    assert loaded.bert.get_layer("pooler").trainable is next_sentence
    assert len(loaded.trainable_weights) == len(model.trainable_weights)
    table = loaded.bert.get_layer("embedding").token_table
    assert sum(tuple(weight.shape) == (50, 32) for weight in loaded.weights) == 1
    table.assign(np.asarray(table) * 2)
    assert not np.allclose(loaded(x)["mlm"], after["mlm"])


def test_a_head_reads_only_the_given_positions() -> None:
    bert = small_bert()
    head = MaskedLMHead(bert.get_layer("embedding"))
    hidden = bert(inputs())["sequence_output"]
    everything = np.asarray(head(hidden))
    positions = np.array([[3, 1], [0, 5]])
    np.testing.assert_allclose(
        head(hidden, positions), everything[[[0], [1]], positions], atol=1e-6
    )


def test_a_frozen_bert_has_no_dropout_and_no_gradient() -> None:
    """Keras turns dropout on in every layer that a training model calls, frozen or not."""
    model = Classifier(small_bert(), 3, frozen=True)
    np.testing.assert_array_equal(model(inputs(), training=True), model(inputs(), training=True))
    assert [weight.path.split("/")[-2] for weight in model.trainable_weights] == [
        "logits",
        "logits",
    ]
    trains = Classifier(small_bert(), 3)
    assert not np.allclose(trains(inputs(), training=True), trains(inputs(), training=True))


@pytest.mark.parametrize("gru_units", [0, 4])
def test_classifier_can_be_saved_and_loaded(tmp_path: Path, gru_units: int) -> None:
    model = Classifier(small_bert(), 3, frozen=True, gru_units=gru_units, dropout=0.2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(model(inputs()), loaded(inputs()))
    assert loaded.settings == model.settings
    assert len(loaded.trainable_weights) == len(model.trainable_weights)


def test_bfloat16_computes_softmax_and_logits_in_float32() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = PretrainingModel(small_bert(return_attention_scores=True))
        states = model.bert(inputs())
        assert states["sequence_output"].dtype == tf.bfloat16
        assert states["attention_scores"][0].dtype == tf.float32
        assert model(inputs(masked_positions=IDS[:, :1]))["mlm"].dtype == tf.float32
        assert {weight.dtype for weight in model.weights} == {"float32"}
    finally:
        keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((50, 16, 30, 1, 4, 64), "hidden_size 30 cannot be divided among 4 heads"),
        ((50, 16, 32, 0, 4, 64), "num_layers is 0"),
    ],
)
def test_invalid_sizes_are_rejected(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_BERT(*arguments)


@pytest.mark.parametrize(
    ("ids", "segments", "message"),
    [
        (IDS + 48, IDS * 0, "outside 0..49: use the tokenizer of the model"),
        (IDS - 3, IDS * 0, "outside 0..49"),
        (IDS, IDS * 0 + 2, "a segment is outside 0..1"),
        (np.ones((1, 17), np.int32), np.zeros((1, 17), np.int32), "longer than maxlen, 16 tokens"),
    ],
)
def test_invalid_inputs_are_rejected(ids: np.ndarray, segments: np.ndarray, message: str) -> None:
    model, x = small_bert(), {"input_ids": ids, "token_type_ids": segments}
    with pytest.raises(ValueError, match=message):
        model(x)
    graph = tf.function(
        model, input_signature=[{name: tf.TensorSpec([None, None], tf.int32, name) for name in x}]
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        graph(x)
