"""Networks of many families run in two parts, equal to the whole to the last bit, or say why not."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from benchmarks.tiny_texts import tiny_config
from datamodules.batches import TextBatch
from lightning_modules.networks.backbones.features import Features
from lightning_modules.networks.backbones.text import text_encoder
from lightning_modules.networks.classifier import Classifier
from lightning_modules.networks.dividing.errors import CannotDivideError
from lightning_modules.networks.dividing.two_parts import PrefixCost, divide
from lightning_modules.networks.freezing.layers import parameters_from
from lightning_modules.networks.freezing.plan import FreezingPlan
from lightning_modules.networks.freezing.prefix import Cut, find_cut
from tests.lightning_modules.dividing import in_two_parts, recorded

# Network -> first layer that trains, and the cut.
IMAGES = {
    "resnet18": ("layer4", "layer4"),
    "convnext_atto": ("stages.3", "stages.3"),
    "efficientnet_lite0": ("blocks.5", "blocks.5"),
    "mobilenetv3_small_050": ("blocks.4.1", "blocks.4.1"),
    "regnetx_002": ("s4", "s4"),
    "swin_tiny_patch4_window7_224": ("layers.3", "layers.3"),
    "mixer_s32_224": ("blocks.6", "blocks.6"),
    "xcit_nano_12_p8_224": ("blocks.9", "blocks.9"),  # its layers also return numbers
}
TEXTS = {
    "bert": ("encoder.layer.1", "encoder.layer.1"),
    "roberta": ("encoder.layer.1", "encoder.layer.1"),
    "distilbert": ("transformer.layer.1", "transformer.layer.1"),
    "electra": ("encoder.layer.1", "encoder.layer.1"),
    "gpt2": ("h.1", "h.1"),
    "llama": ("layers.1", "layers.1"),
}


def pixels(model: nn.Module) -> Tensor:
    config: Any = model.pretrained_cfg
    side = config["input_size"][1] if config.get("fixed_input_size") else 64
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0)
    start, layer = IMAGES[name]
    images, trained = pixels(model), set(parameters_from(model, start))
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad = parameter_name in trained
    expected = model.eval()(images)
    parts, found = in_two_parts(model, layer, images)
    assert torch.equal(found, expected)
    gradients = []
    for output in (expected, found):
        model.zero_grad()
        output.square().sum().backward()
        gradients.append([p.grad for n, p in model.named_parameters() if n in trained])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    later = tuple(f"{part}." for part in parts.later)
    assert trained == {n for n, _ in model.named_parameters() if n.startswith(later)}


def _values(config: PretrainedConfig) -> dict[str, Any]:
    """Return the values of a configuration that differ from its defaults, with its type."""
    return {"model_type": config.model_type, **config.to_diff_dict()}


def encoder_of(model_type: str) -> Any:
    torch.manual_seed(0)
    return text_encoder(_values(tiny_config(model_type)), None)


def texts() -> TextBatch:
    lengths = torch.tensor([9, 4, 6])
    return TextBatch(
        input_ids=torch.randint(2, 60, (3, 9), generator=torch.Generator().manual_seed(2)),
        attention_mask=(torch.arange(9) < lengths[:, None]).long(),
        labels=torch.zeros(3, dtype=torch.long),
        index=torch.arange(3),
    )


@pytest.mark.parametrize("model_type", TEXTS)
def test_texts(model_type: str) -> None:
    encoder, (start, layer) = encoder_of(model_type), TEXTS[model_type]
    frozen = FreezingPlan({"features": None, f"features.model.{start}": 0})
    network = Classifier(encoder, nn.Linear(16, 2))
    assert find_cut(network, frozen) == Cut(layer)
    cut, batch = Cut(layer), texts()
    with torch.no_grad():
        expected = encoder.eval()(batch).values
        state = cut.prefix(encoder, batch)
        real = batch["attention_mask"].bool()
        stored = Features(state.values.masked_fill(~real[..., None], 0), state.lengths)
        assert torch.equal(cut.suffix(encoder, stored).values[real], expected[real])
    names = [name.removeprefix("model.") for name in cut.tensors(encoder)]
    assert not any(name.startswith(f"{layer}.") for name in names)
    assert any("embed" in name or "wte" in name for name in names)


@pytest.mark.parametrize(
    ("model_type", "start", "reason"),
    [
        ("t5", "encoder.block.1", "more than one tensor passes"),
        ("fnet", "encoder.layer.1", "depend on the padding"),
        ("xlnet", "layer.1", "not one for each token"),
    ],
)
def test_texts_that_cannot_be_divided(model_type: str, start: str, reason: str) -> None:
    encoder = encoder_of(model_type)
    name = next(n for n, _ in encoder.model.named_modules() if n.endswith(start.split(".", 1)[1]))
    plan = FreezingPlan({"features": None, f"features.model.{name}": 0})
    found = find_cut(Classifier(encoder, nn.Linear(16, 2)), plan)
    assert reason in str(found)


def test_repeated_layers_are_divided_before_all_of_them() -> None:
    encoder = encoder_of("albert")
    start = "features.model.encoder.albert_layer_groups.0"
    plan = FreezingPlan({"features": None, start: 0})
    assert find_cut(Classifier(encoder, nn.Linear(16, 2)), plan) == Cut("encoder")


def test_cost_of_the_first_part() -> None:
    encoder = encoder_of("bert")
    tokens, width, inner = 11, 16, 24
    # For each token: query, key, value and output, their products, and two layers of the MLP.
    layer = 4 * width**2 + 2 * tokens * width + 2 * width * inner
    cost = encoder.prefix_cost("encoder.layer.1")
    assert cost == PrefixCost(0.5, layer)
    assert encoder.prefix_cost("encoder.layer.0") == PrefixCost(0.0, 0.0)


class Skipping(nn.Module):
    """The first layer's output reaches the last one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(self.second(y) + y).mean(dim=(2, 3))


class Ragged(Skipping):
    """The shape of the first layer's output is no multiple of the number of images."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(torch.cat([x, x[:1]]))
        return self.second(y[:-1]).mean(dim=(2, 3))


def test_a_second_tensor_is_found() -> None:
    with pytest.raises(CannotDivideError, match="more than one tensor passes from the layers befo"):
        in_two_parts(Skipping(), "second", torch.rand(2, 3, 4, 4))
    _, found = in_two_parts(Skipping(), "last", torch.rand(2, 3, 4, 4))
    assert found.shape == (2, 3)


def test_an_unknown_shape_is_found() -> None:
    with pytest.raises(CannotDivideError, match="shape of the output of first depends"):
        in_two_parts(Ragged(), "second", torch.rand(2, 3, 4, 4))


def test_dividing_leaves_a_network_as_it_is() -> None:
    model = timm.create_model("resnet18", num_classes=0).train()
    images = torch.rand(2, 3, 64, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes, random = {*vars(model.layer1)}, torch.get_rng_state()
    found = recorded(model, images)
    torch.set_rng_state(random)
    divide(model, "layer3", found)
    assert torch.equal(torch.get_rng_state(), random)
    assert {*vars(model.layer1)} == attributes
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    order = found.layers(model)
    assert order[0] == "conv1"
    assert order.index("layer2.0.conv1") < order.index("layer3.0.conv1")
