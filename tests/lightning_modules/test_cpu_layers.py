"""Layers for training on a CPU in bfloat16: the same formulas as torch's and Hugging Face's."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, DistilBertConfig, PreTrainedConfig, RobertaConfig

from lightning_modules.networks.backbones.text import TextEncoder
from lightning_modules.networks.kernels.cpu_layers import (
    Dropout,
    LayerNorm,
    cpu_attention,
    dropout_factors,
    use_cpu_layers,
)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 60,
}
CONFIGS = [
    BertConfig(**SIZES),
    RobertaConfig(**SIZES),
    DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=60),
]


def inputs() -> dict[str, Tensor]:
    ids = torch.randint(5, 60, (6, 11), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([11, 3, 7, 11, 1, 9])
    return {"input_ids": ids, "attention_mask": (torch.arange(11) < lengths[:, None]).long()}


def bf16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(p: float) -> None:
    torch.manual_seed(1)
    factors = dropout_factors((1000, 401), p)
    kept = factors != 0
    assert factors.dtype == torch.bfloat16
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=4e-3)
    assert set(factors[kept].tolist()) == {float(torch.tensor(1 / (1 - p), dtype=torch.bfloat16))}
    # Rows, columns and the four numbers of one draw are independent.
    assert kept.float().mean(0).std() < 3 * (p * (1 - p) / 1000) ** 0.5
    flat = kept.flatten()[: 4 * (kept.numel() // 4)].view(-1, 4).float()
    assert (torch.corrcoef(flat.T) - torch.eye(4)).abs().max() < 0.02


def test_dropout_follows_torchs_seed() -> None:
    torch.manual_seed(3)
    first, second = dropout_factors((7, 9), 0.5), dropout_factors((7, 9), 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout_factors((7, 9), 0.5), first)
    assert not torch.equal(first, second)


def test_dropout_outside_of_bfloat16_training_is_torchs() -> None:
    layer, x = Dropout(0.3), torch.randn(5, 8)
    torch.manual_seed(1)
    expected = nn.functional.dropout(x, 0.3)
    torch.manual_seed(1)
    assert torch.equal(layer(x), expected)
    with bf16():
        assert torch.equal(layer.eval()(x.bfloat16()), x.bfloat16())
        layer.train()
        dropped = layer(torch.ones(64, 64, dtype=torch.bfloat16))
    assert 0 < int((dropped == 0).sum()) < dropped.numel()


def test_layer_norm_equals_torchs_except_for_the_dtype() -> None:
    plain = nn.LayerNorm(16)
    nn.init.normal_(plain.weight)
    ours, x = LayerNorm.like(plain), torch.randn(4, 16)
    assert ours.weight is plain.weight
    assert torch.equal(ours(x), plain(x))
    with bf16():
        assert ours(x).dtype == torch.bfloat16
    with torch.no_grad(), bf16():
        assert torch.allclose(ours(x).float(), plain(x), atol=3e-2)


@pytest.mark.parametrize("masked", [True, False])
def test_attention_equals_its_formula_in_value_and_gradient(
    masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dropout factors are fixed, so that both sides drop the same weights."""
    torch.manual_seed(1)
    factors = dropout_factors((6 * 4, 11, 11), 0.25)
    monkeypatch.setattr(
        "lightning_modules.networks.kernels.cpu_layers.dropout_factors",
        lambda shape, p: factors.view(shape),
    )
    q, k, v = (torch.randn(6, 4, 11, 8).bfloat16().requires_grad_() for _ in range(3))
    mask = inputs()["attention_mask"].bool()[:, None, None].expand(6, 1, 11, 11) if masked else None
    with bf16():
        layer = nn.Module()
        layer.is_causal = False  # type: ignore[assignment]
        ours, _ = cpu_attention(layer, q, k, v, mask, dropout=0.25)
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    scores = wide[0] @ wide[1].transpose(2, 3) / 8**0.5
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    expected = ((scores.softmax(-1) * factors.view(6, 4, 11, 11).double()) @ wide[2]).transpose(
        1, 2
    )
    ours.float().square().sum().backward()
    expected.square().sum().backward()
    assert _error(ours, expected) < 1e-2
    for mine, theirs in zip((q, k, v), wide, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert _error(mine.grad, theirs.grad) < 2e-2


def test_a_decoder_without_a_mask_stays_causal() -> None:
    """Hugging Face passes no mask for a batch without padding.

    It leaves the causal mask to torch.
    """
    layer = nn.Module()
    layer.is_causal = True  # type: ignore[assignment]
    q, k, v = (torch.randn(2, 4, 6, 8).bfloat16() for _ in range(3))
    with bf16():
        before, _ = cpu_attention(layer.train(), q, k, v, None, dropout=1e-9)
        v[:, :, 3:] = 7.0
        after, _ = cpu_attention(layer, q, k, v, None, dropout=1e-9)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_cpu_layers_keep_the_outputs_of_an_encoder(config: PreTrainedConfig) -> None:
    torch.manual_seed(1)
    plain = AutoModel.from_config(config, dtype=torch.float32)
    ours = AutoModel.from_config(config, dtype=torch.float32)
    ours.load_state_dict(plain.state_dict())
    use_cpu_layers(ours)
    assert list(ours.state_dict()) == list(plain.state_dict())
    kinds = {type(module) for module in ours.modules()}
    assert Dropout in kinds
    assert nn.Dropout not in kinds
    assert nn.LayerNorm not in kinds
    texts = inputs()
    torch.manual_seed(2)
    expected = plain(**texts).last_hidden_state  # in train mode, dropout included
    torch.manual_seed(2)
    assert torch.equal(ours(**texts).last_hidden_state, expected)
    expected = plain.eval()(**texts).last_hidden_state
    real = texts["attention_mask"].bool()
    with torch.no_grad(), bf16():
        assert _error(ours.eval()(**texts).last_hidden_state[real], expected[real]) < 2e-2


def test_gradients_equal_hugging_faces_within_bfloat16() -> None:
    """Dropout layers run at a rate near 0, because they and torch drop different elements."""
    config = BertConfig(**SIZES, hidden_dropout_prob=1e-9, attention_probs_dropout_prob=1e-9)
    torch.manual_seed(1)
    plain = AutoModel.from_config(config, dtype=torch.float32, add_pooling_layer=False).train()
    ours = AutoModel.from_config(config, dtype=torch.float32, add_pooling_layer=False).train()
    ours.load_state_dict(plain.state_dict())
    use_cpu_layers(ours)
    texts = inputs()
    weights = texts["attention_mask"][..., None] * torch.randn(
        6, 11, 32, generator=torch.Generator().manual_seed(3)
    )
    (plain(**texts).last_hidden_state * weights).sum().backward()
    with bf16():
        states = ours(**texts).last_hidden_state
    (states.float() * weights).sum().backward()
    mine, theirs = (
        torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None])
        for m in (ours, plain)
    )
    assert _error(mine, theirs) < 3e-2


def test_the_text_encoder_has_cpu_layers() -> None:
    encoder = TextEncoder(AutoModel.from_config(BertConfig(**SIZES), dtype=torch.float32), "mean")
    assert encoder.config._attn_implementation == "thaw_cpu"
    assert "thaw_cpu" not in str(encoder.config.to_dict())
    with bf16():
        given = encoder.train()({**inputs(), "labels": torch.zeros(6), "index": torch.arange(6)})  # type: ignore[typeddict-item]
    assert given.values.shape == (6, 32)


def _error(mine: Tensor, theirs: Tensor) -> float:
    difference = mine.detach().double() - theirs.detach().double()
    return float(difference.norm() / theirs.detach().double().norm())
