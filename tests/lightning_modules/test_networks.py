"""Text backbones with every head: one contract, and exact numbers where a reference exists."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from datamodules.batches import TextBatch
from lightning_modules.networks.backbones.text import BackboneError, Features, text_encoder
from lightning_modules.networks.heads.classification import BiGRUHead, LinearHead
from lightning_modules.networks.kernels.bigru import BiGRU, _Recurrence
from lightning_modules.text_classifier import TextClassifier

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
BACKBONES = {
    "bert": {"model_type": "bert", **SMALL},
    "roberta": {"model_type": "roberta", **SMALL, "max_position_embeddings": 66, "pad_token_id": 1},
    "electra": {"model_type": "electra", **SMALL, "embedding_size": 16},
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": 50,
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 24,
    },
    "albert": {"model_type": "albert", **SMALL, "embedding_size": 8},
    "mpnet": {"model_type": "mpnet", **SMALL, "max_position_embeddings": 66, "pad_token_id": 1},
}
HEADS = [("linear", "pooler"), ("linear", "cls"), ("linear", "mean"), ("bigru", "pooler")]
FACTORIES = {"linear": LinearHead, "bigru": partial(BiGRUHead, hidden=8)}
NO_POOLER = {"electra", "distilbert"}


def batch(lengths: list[int], seed: int = 0) -> TextBatch:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 50, (len(lengths), longest), generator=generator) * mask + (1 - mask)
    return TextBatch(
        input_ids=ids,
        attention_mask=mask,
        labels=torch.zeros(len(lengths), dtype=torch.int64),
        index=torch.arange(len(lengths)),
    )


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize(("head", "pooling"), HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_contract(backbone: str, head: str, pooling: str, num_classes: int) -> None:
    """Shapes, frozen features, gradients, padding, bf16 and the state dict."""

    def build(*, freeze: bool = False) -> TextClassifier:
        torch.manual_seed(0)
        return TextClassifier(
            BACKBONES[backbone],
            num_classes,
            freeze_backbone=freeze,
            head=FACTORIES[head],
            pooling=pooling,
        )  # type: ignore[arg-type]

    if backbone in NO_POOLER and (head, pooling) == ("linear", "pooler"):
        with pytest.raises(
            BackboneError,
            match=r"has no pooler: choose model.pooling=cls or mean, or head=bigru",
        ):
            build()
        return
    task = build().eval()
    texts = batch([9, 3, 1, 6])
    logits = task.network(texts)
    assert logits.shape == (4, 1 if num_classes == 2 else 3)
    probabilities = task(texts)
    assert probabilities.shape == (4, num_classes)
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1] * 4, abs=1e-6)

    # A text's logits do not depend on the batch it is in.
    for i, length in enumerate([9, 3, 1, 6]):
        alone = TextBatch(
            **{k: v[i : i + 1] if v.ndim == 1 else v[i : i + 1, :length] for k, v in texts.items()}
        )  # type: ignore[typeddict-item, attr-defined, index]
        torch.testing.assert_close(task.network(alone), logits[i : i + 1], atol=1e-5, rtol=0)

    # Every trained parameter gets a gradient; no frozen one does.
    for model in (build(), build(freeze=True)):
        model.loss_and_predictions(texts)[0].backward()
        for name, parameter in model.network.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.requires_grad or name.startswith("features")

    with torch.autocast("cpu", torch.bfloat16):
        loss, halved = task.loss_and_predictions(texts)
    assert loss.dtype == halved.dtype == torch.float32
    torch.testing.assert_close(halved, probabilities, atol=0.05, rtol=0)

    again = TextClassifier(
        task.backbone_config(), num_classes, head=FACTORIES[head], pooling=pooling
    )  # type: ignore[arg-type]
    again.load_state_dict(task.state_dict())
    assert torch.equal(again.eval().network(texts), logits)


def packed_reference(gru: BiGRU, states: Tensor, lengths: Tensor) -> tuple[Tensor, nn.GRU]:
    """The same weights in torch's own bidirectional GRU over a packed sequence."""
    reference = nn.GRU(
        states.shape[2], gru.forwards.hidden_size, batch_first=True, bidirectional=True
    )
    own = {name: value for name, value in gru.forwards.state_dict().items()}
    own |= {f"{name}_reverse": value for name, value in gru.backwards.state_dict().items()}
    reference.load_state_dict(own)
    packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
    return torch.cat(list(reference(packed)[1]), dim=-1), reference


def test_bigru_equals_torchs_packed_one_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    gru, lengths = BiGRU(6, 5), torch.tensor([7, 1, 4, 7, 2])
    inputs = [torch.randn(5, 7, 6).requires_grad_() for _ in range(1)]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    ours, (theirs, reference) = gru(inputs[0], lengths), packed_reference(gru, inputs[1], lengths)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    weights = torch.randn_like(ours)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, atol=1e-6, rtol=0)
    padding = torch.arange(7) >= lengths[:, None]
    assert inputs[0].grad is not None
    assert not inputs[0].grad[padding].any()
    for own, suffix in ((gru.forwards, ""), (gru.backwards, "_reverse")):
        for name, parameter in own.named_parameters():
            expected = getattr(reference, f"{name}{suffix}").grad
            torch.testing.assert_close(
                parameter.grad, expected, atol=1e-6, rtol=1e-5, msg=f"{name}{suffix}"
            )


def test_the_recurrence_has_the_gradient_of_its_formula() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = ((4, 2, 3, 6), (2, 6, 2), (2, 6))
    inputs = [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]
    assert torch.autograd.gradcheck(_Recurrence.apply, inputs)


def test_bigru_has_the_published_size() -> None:
    head = BiGRUHead(768, 1)
    assert sum(p.numel() for p in head.gru.parameters()) == 689_664
    assert sum(p.numel() for p in head.output.parameters()) == 257


def test_bigru_head_rejects_pooled_features() -> None:
    with pytest.raises(ValueError, match="needs token states"):
        BiGRUHead(4, 1, hidden=2)(Features(torch.zeros(2, 4)))


def test_linear_head() -> None:
    head = LinearHead(4, 3, dropout=0.0)
    values = torch.randn(2, 4)
    torch.testing.assert_close(
        head(Features(values)), values @ head.output.weight.T + head.output.bias
    )


def test_mean_pooling_counts_tokens_only() -> None:
    encoder = text_encoder(BACKBONES["bert"], "mean").eval()
    texts = batch([5, 2])
    states = encoder.model(
        input_ids=texts["input_ids"], attention_mask=texts["attention_mask"]
    ).last_hidden_state
    expected = torch.stack([states[0, :5].mean(0), states[1, :2].mean(0)])
    torch.testing.assert_close(encoder(texts).values, expected)


def test_a_saved_backbone_is_loaded_in_float32_with_its_weights(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel

    halved = tmp_path / "half"
    reference = AutoModel.from_pretrained(tiny_backbone, dtype=torch.float32)
    reference.to(torch.bfloat16).save_pretrained(halved)
    encoder = text_encoder(str(halved), None)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert encoder.training
    name = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(encoder.model.get_parameter(name), reference.get_parameter(name).float())
    assert isinstance(encoder.model.pooler, nn.Identity)
    assert not any("pooler" in key for key in encoder.state_dict())


def test_missing_weights_are_rejected_and_not_random(tiny_backbone: Path, tmp_path: Path) -> None:
    from transformers import BertModel

    BertModel.from_pretrained(tiny_backbone, add_pooling_layer=False).save_pretrained(tmp_path)
    with pytest.raises(
        BackboneError,
        match=r"no weights for pooler.*so they would be random; choose model.pooling=cls or mean",
    ):
        text_encoder(str(tmp_path), "pooler")
    assert text_encoder(str(tmp_path), "mean").width == 16


@pytest.mark.parametrize("damage", ["no config", "cut weights", "no weights"])
def test_unusable_folder_is_one_clear_error(
    damage: str, tiny_backbone: Path, tmp_path: Path
) -> None:
    import shutil

    folder = shutil.copytree(tiny_backbone, tmp_path / "backbone")
    weights = folder / "model.safetensors"
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        weights.unlink()
    with pytest.raises(
        BackboneError, match=r"no usable backbone in this folder .* save_pretrained"
    ):
        text_encoder(str(folder), None)


def test_an_unavailable_hub_name_mentions_hub_and_local_folder() -> None:
    with pytest.raises(
        BackboneError, match=r"model.backbone=no/such: no such folder .* hub .* local folder"
    ):
        text_encoder("no/such", None)
