"""Networks in two parts, and the last block for the tokens that are read: exact, in value and gradient."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from engine.feature_computing import _held_in_half
from lightning_modules.networks.freezing import FreezingPlan
from lightning_modules.networks.frozen_prefix import Cut, find_cut
from lightning_modules.networks.vision_layers import behind, behind_block, input_of, pooled_features, shortened, tokens_read
from lightning_modules.text_classifier import TextClassifier
from tests.lightning_modules.test_image_networks import BACKBONES, batch

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
# Name -> architecture, its arguments, tokens that its pooling reads.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "deit": ("deit_base_distilled_patch16_224", {}, 2),
    "vit": ("vit_base_patch16_224", {"init_values": 0.1}, 1),
    "vit, no bias": ("vit_base_patch16_224", {"qkv_bias": False}, 1),
    "beit": ("beit_base_patch16_224", {"global_pool": "token", "init_values": 0.1}, 1),
    "beit, shared positions": (
        "beit_base_patch16_224",
        {"global_pool": "token", "init_values": None, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
        1,
    ),
    "beit, mean of the patches": ("beit_base_patch16_224", {}, 0),
}


def network(name: str, dtype: torch.dtype = torch.float32, **more: Any) -> nn.Module:
    architecture, arguments, _ = TRANSFORMERS[name]
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=0, **{**VIT, **arguments, **more}).to(dtype)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def pixels(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype)


def value_and_gradient(model: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    (features * torch.arange(features.numel(), dtype=features.dtype).view_as(features).cos()).sum().backward()
    gradients = [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in model.parameters()]
    return features.detach(), torch.cat(gradients)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_shortened_block_and_both_parts_give_what_timm_gives(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model, images = network(name, dtype).train(), pixels(dtype)
    assert tokens_read(model) == TRANSFORMERS[name][2]
    assert shortened(model) == (TRANSFORMERS[name][2] > 0)
    value, gradient = value_and_gradient(model, model(images))
    ways = [pooled_features(model, images)]
    ways += [behind_block(model, start, input_of(model, f"blocks.{start}", images)) for start in (1, 2)]
    for features in ways:
        ours, ours_gradient = value_and_gradient(model, features)
        assert (ours - value).norm() <= tolerance * value.norm()
        assert (ours_gradient - gradient).norm() <= tolerance * gradient.norm()


@pytest.mark.parametrize("name", [name for name, (_, _, read) in TRANSFORMERS.items() if read])
def test_in_bfloat16_the_shortened_block_is_as_near_to_float64_as_timm(name: str) -> None:
    exact = network(name, torch.float64).eval()(pixels(torch.float64)).detach()
    model, images = network(name).eval(), pixels()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole, short = model(images), pooled_features(model, images)
        with _held_in_half(model, torch.bfloat16):
            assert torch.equal(pooled_features(model, images), short)
    assert not torch.equal(whole, short)
    assert (short - exact).norm() <= 1.2 * (whole - exact).norm()


@pytest.mark.parametrize("name", [name for name, (_, _, read) in TRANSFORMERS.items() if read])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_of_the_shortened_block_in_bfloat16(name: str, autocast: bool) -> None:
    dtype = torch.float32 if autocast else torch.bfloat16
    exact_model = network(name, torch.float64).train()
    _, exact = value_and_gradient(exact_model, exact_model(pixels(torch.float64)))
    errors = []
    for run in (lambda model, images: model(images), pooled_features):
        model = network(name, dtype).train()
        assert shortened(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            features = run(model, pixels(dtype))
        errors.append((value_and_gradient(model, features.float())[1].double() - exact).norm() / exact.norm())
    assert errors[1] <= 1.2 * errors[0]


def test_work_for_tokens_that_nobody_reads_is_left_out() -> None:
    model, seen = network("deit").eval(), []
    for block in model.blocks[1:]:
        run = block.mlp.forward
        block.mlp.forward = lambda state, run=run: seen.append(state.shape[1]) or run(state)
    pooled_features(model, pixels())
    assert seen == [18, 2]


@pytest.mark.parametrize("layer", ["blocks.2", "blocks.2.attn", "blocks.2.mlp.fc1"])
def test_a_block_that_is_watched_is_left_whole(layer: str) -> None:
    model, seen = network("deit").eval(), []
    handle = model.get_submodule(layer).register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    assert torch.equal(pooled_features(model, pixels()), model(pixels()))
    assert seen == [18, 18]
    handle.remove()
    assert shortened(model)


@pytest.mark.parametrize("drawing", ["drop_path_rate", "attn_drop_rate", "proj_drop_rate"])
def test_a_block_that_draws_random_numbers_is_left_whole(drawing: str) -> None:
    model = network("deit", **{drawing: 0.5}).train()
    assert not shortened(model)
    torch.manual_seed(5)
    expected = model(pixels())
    torch.manual_seed(5)
    assert torch.equal(pooled_features(model, pixels()), expected)
    assert shortened(model.eval())


def test_a_block_that_normalises_its_keys_is_left_whole() -> None:
    model = network("vit", qk_norm=True).eval()
    assert not shortened(model)
    assert torch.equal(pooled_features(model, pixels()), model(pixels()))


def test_blocks_of_another_kind_are_left_whole() -> None:
    class Changed(type(network("vit").blocks[2])):  # type: ignore[misc]
        def forward(self, x: Tensor, **more: Any) -> Tensor:
            return super().forward(x, **more) * 2

    model = network("vit").eval()
    model.blocks[2].__class__ = Changed
    assert not shortened(model)
    assert torch.equal(pooled_features(model, pixels()), model(pixels()))


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [("vgg", "features.3"), ("vgg", "features.16"), ("densenet", "features.denseblock4"), ("densenet", "features.norm5"),
     ("beit", "blocks.1"), ("deit", "blocks.2")],
)  # fmt: skip
def test_parts_of_a_network_give_the_whole(backbone: str, layer: str) -> None:
    from lightning_modules.image_classifier import ImageClassifier

    torch.manual_seed(0)
    task = ImageClassifier(BACKBONES[backbone], 3).eval()  # type: ignore[arg-type]
    features, cut = task.network.features, Cut(layer)
    with torch.no_grad():
        expected = features(batch()).values
        state = cut.first(features, batch())
        torch.testing.assert_close(cut.rest(features, state).values, expected)
        torch.testing.assert_close(behind(features.model, layer, state.values), expected)


def cut_of(backbone: str, starts: dict[str, int | None]) -> Cut | str:
    from lightning_modules.image_classifier import ImageClassifier

    task = ImageClassifier(BACKBONES[backbone], 3)  # type: ignore[arg-type]
    return find_cut(task.network, FreezingPlan({f"features.{name}": start for name, start in starts.items()}))


def test_cut_is_the_last_place_before_anything_that_ever_trains() -> None:
    frozen: dict[str, int | None] = {"model": None}
    assert cut_of("deit", frozen) == Cut()
    assert cut_of("deit", {**frozen, "model.blocks.2": 0}) == Cut("blocks.2")
    assert cut_of("deit", {**frozen, "model.blocks.2": 0, "model.blocks.1": 5}) == Cut("blocks.1")
    assert cut_of("deit", {**frozen, "model.norm": 0}) == Cut("blocks.2")
    assert cut_of("densenet", {**frozen, "model.features.denseblock3": 1}) == Cut("features.denseblock3")
    assert "first layer, blocks.0" in str(cut_of("beit", {**frozen, "model.blocks.0.norm1": 3}))
    assert "cls_token trains" in str(cut_of("beit", {**frozen, "model.cls_token": 0}))
    assert "cannot be run from a layer in its middle" in str(cut_of("convnext", {**frozen, "model.stages.3": 0}))
    assert cut_of("deit", {}) == ""
    assert cut_of("flat_pixels", frozen) == ""
    text = TextClassifier({"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}, 2)
    assert find_cut(text.network, FreezingPlan({"features": None})) == Cut()
    later = find_cut(text.network, FreezingPlan({"features": None, "features.model.encoder.layer.1": 0}))
    assert "BertModel trains from encoder.layer.1." in str(later)
