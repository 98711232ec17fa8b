"""A network that is cut into prefix and suffix keeps its values and gradients."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from lightning_modules.networks.freezing.plan import FreezingPlan
from lightning_modules.networks.freezing.prefix import Cut, find_cut
from lightning_modules.text_classifier import TextClassifier
from tests.lightning_modules.dividing import in_two_parts
from tests.lightning_modules.test_image_networks import BACKBONES, batch

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
# Name -> architecture and its arguments.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "deit": ("deit_base_distilled_patch16_224", {}),
    "vit": ("vit_base_patch16_224", {"init_values": 0.1}),
    "beit, class token": ("beit_base_patch16_224", {"global_pool": "token", "init_values": 0.1}),
    "beit, shared positions": (
        "beit_base_patch16_224",
        {"init_values": None, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
    ),
    "beit, mean of the patches": ("beit_base_patch16_224", {}),
}


def network(name: str) -> nn.Module:
    architecture, arguments = TRANSFORMERS[name]
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=0, **VIT, **arguments)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def pixels() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def value_and_gradient(model: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    (
        features * torch.arange(features.numel(), dtype=features.dtype).view_as(features).cos()
    ).sum().backward()
    gradients = [
        p.grad.flatten() if p.grad is not None else torch.zeros(p.numel())
        for p in model.parameters()
    ]
    return features.detach(), torch.cat(gradients)


@pytest.mark.parametrize("start", [1, 2])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_prefix_and_suffix_of_a_transformer_equal_timms_model(
    name: str, autocast: bool, start: int
) -> None:
    """Features and gradients of the layers after the cut are bitwise equal."""
    model, images, layer = network(name).train(), pixels(), f"blocks.{start}"
    later = ("norm", "fc_norm", *(f"blocks.{number}" for number in range(start, 3)))
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad = parameter_name.startswith(later)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = value_and_gradient(model, model(images).float())
        found = value_and_gradient(model, in_two_parts(model, layer, images)[1].float())
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [("vgg", "features.3"), ("vgg", "features.16"), ("densenet", "features.denseblock4"), ("densenet", "features.norm5"),
     ("beit", "blocks.1"), ("deit", "blocks.2"), ("token_learner_vit", "blocks.token_learner"), ("token_learner_vit", "blocks.2"),
     ("fdvit", "stages.1"), ("fdvit", "stages.2")],
)  # fmt: skip
def test_prefix_and_suffix_equal_the_whole_network(backbone: str, layer: str) -> None:
    from lightning_modules.image_classifier import ImageClassifier

    torch.manual_seed(0)
    task = ImageClassifier(BACKBONES[backbone], 3).eval()  # type: ignore[arg-type]
    features, cut = task.network.features, Cut(layer)
    with torch.no_grad():
        expected = features(batch()).values
        state = cut.prefix(features, batch())
        assert torch.equal(cut.suffix(features, state).values, expected)


def cut_of(backbone: str, starts: dict[str, int | None]) -> Cut | str:
    from lightning_modules.image_classifier import ImageClassifier

    task = ImageClassifier(BACKBONES[backbone], 3)  # type: ignore[arg-type]
    return find_cut(
        task.network, FreezingPlan({f"features.{name}": start for name, start in starts.items()})
    )


def test_cut_is_before_the_first_layer_that_ever_trains() -> None:
    frozen: dict[str, int | None] = {"model": None}
    assert cut_of("deit", frozen) == Cut()
    assert cut_of("deit", {**frozen, "model.blocks.2": 0}) == Cut("blocks.2")
    assert cut_of("deit", {**frozen, "model.blocks.2": 0, "model.blocks.1": 5}) == Cut("blocks.1")
    assert cut_of("deit", {**frozen, "model.norm": 0}) == Cut("norm")
    assert cut_of("densenet", {**frozen, "model.features.denseblock3": 1}) == Cut(
        "features.denseblock3"
    )
    assert cut_of("fdvit", {**frozen, "model.stages.2": 0}) == Cut("stages.2")
    learner: dict[str, int | None] = {**frozen, "model.blocks.token_learner": 0}
    assert cut_of("token_learner_vit", learner) == Cut("blocks.token_learner")
    assert cut_of("beit", {**frozen, "model.blocks.0.norm1": 3}) == Cut("blocks.0")
    assert "first layer, patch_embed" in str(cut_of("beit", {**frozen, "model.patch_embed": 0}))
    assert "cls_token trains" in str(cut_of("beit", {**frozen, "model.cls_token": 0}))
    assert cut_of("convnext", {**frozen, "model.stages.3": 0}) == Cut("stages.3")
    assert cut_of("deit", {}) == ""
    assert cut_of("flat_pixels", frozen) == ""
    text = TextClassifier(
        {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2},
        2,
    )
    assert find_cut(text.network, FreezingPlan({"features": None})) == Cut()
    later = FreezingPlan({"features": None, "features.model.encoder.layer.1": 0})
    assert find_cut(text.network, later) == Cut("encoder.layer.1")
