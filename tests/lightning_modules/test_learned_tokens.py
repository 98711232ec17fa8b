"""TokenLearner: the formulas written out in numpy, counts of parameters, places in the network."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.image import image_encoder
from lightning_modules.networks.dividing.counting import block_costs
from lightning_modules.networks.dividing.two_parts import forward_until
from lightning_modules.networks.freezing.layers import layer_numbers
from lightning_modules.networks.tokens.errors import TokenError
from lightning_modules.networks.tokens.insertion import learn_tokens
from lightning_modules.networks.tokens.learning import ConvTokenLearner, TokenFuser, TokenLearner
from lightning_modules.networks.tokens.token_learner_vit import TokenLearnerViT
from tests.lightning_modules.dividing import in_two_parts

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 4}
erf = np.vectorize(math.erf)


def random_weights(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return module.eval()


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def array(value: Tensor) -> np.ndarray:
    return value.detach().double().numpy()


def norm(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    weight, bias = map(array, layer.parameters())
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * weight + bias


def linear(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    weight, bias = map(array, layer.parameters())
    return x @ weight.T + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def mlp(x: np.ndarray, layers: nn.Sequential) -> np.ndarray:
    return linear(gelu(linear(x, layers[0])), layers[3])


def convolved(x: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """A 3 x 3 convolution of [B, H, W, C] with zeros around it."""
    weight = array(layer.weight)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ weight[:, :, i, j].T
        for i in range(3)
        for j in range(3)
    )


def test_version_1_1_equals_the_formula() -> None:
    learner, x = random_weights(TokenLearner(12, 5)), tokens(2, 16, 12)
    values = array(x)
    scores = mlp(norm(values, learner.norm), learner.mlp)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    expected = np.einsum("bns,bnc->bsc", weights, values)
    np.testing.assert_allclose(array(learner(x)), expected, atol=1e-6)


@pytest.mark.parametrize("mean", [False, True])
def test_version_1_0_equals_the_formula(mean: bool) -> None:
    learner, x = (
        random_weights(ConvTokenLearner(12, 5, (4, 4), mean=mean)).double(),
        tokens(2, 16, 12),
    )
    values = array(x)
    grid = norm(values, learner.norm).reshape(2, 4, 4, 12)
    layers = learner.convolutions
    for i in (0, 2, 4, 6):
        grid = convolved(grid, layers[i])
        grid = gelu(grid) if i < 6 else grid
    gates = sigmoid(grid).reshape(2, 16, 5)
    expected = np.einsum("bns,bnc->bsc", gates, values) / (16 if mean else 1)
    np.testing.assert_allclose(array(learner(x.double())), expected, atol=1e-6)


def test_the_fuser_equals_the_formula() -> None:
    fuser = random_weights(TokenFuser(12, 5)).double()
    learned, x = tokens(2, 5, 12), tokens(2, 16, 12)
    mixed = linear(norm(array(learned), fuser.norm_learned).transpose(0, 2, 1), fuser.mix)
    mixed = norm(mixed.transpose(0, 2, 1), fuser.norm_mixed)
    gates = sigmoid(mlp(norm(array(x), fuser.norm), fuser.mlp))
    expected = gates @ mixed + array(x)
    np.testing.assert_allclose(array(fuser(learned.double(), x.double())), expected, atol=1e-6)


def test_a_new_fuser_returns_its_input() -> None:
    x = tokens(2, 16, 12)
    assert torch.equal(TokenFuser(12, 5)(tokens(2, 5, 12), x), x)


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (TokenLearner(768, 8), 51_272),
        (TokenLearner(768, 16), 51_792),
        (TokenLearner(192, 8), 13_256),
        (ConvTokenLearner(768, 8, (14, 14)), 58_560),
        (ConvTokenLearner(768, 16, (14, 14)), 119_040),
        (TokenFuser(768, 8), 54_416),
    ],
)
def test_counts_of_parameters(module: nn.Module, count: int) -> None:
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def test_tokens_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="received 16 tokens for a grid of 4 x 9"):
        ConvTokenLearner(12, 5, (4, 9))(tokens(2, 16, 12))


def test_a_grid_need_not_be_a_square() -> None:
    network = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, **{**SMALL, "img_size": (32, 72)}
    )
    learn_tokens(network, "blocks.1", 3, "v1.0")
    assert network.blocks.token_learner.learner.grid == (4, 9)
    assert network(torch.zeros(1, 3, 32, 72)).shape == (1, 24)


@pytest.mark.parametrize("settings", [("v1.0",), ("v1.1",), ("v1.1", True)])
def test_threads_do_not_matter(settings: tuple[object, ...]) -> None:
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=3).eval()
    learn_tokens(network.eval(), "blocks.0", 8, *settings)  # type: ignore[arg-type]
    random_weights(network)
    threads, outputs = torch.get_num_threads(), list[Tensor]()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.no_grad():
                outputs.append(network(torch.ones(2, 3, 224, 224)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*outputs)


@pytest.mark.parametrize("version", ["v1.0", "v1.1"])
@pytest.mark.parametrize(
    ("name", "prefix"), [("vit_tiny_patch16_224", 1), ("deit_tiny_distilled_patch16_224", 2)]
)
def test_learned_tokens_in_a_network(name: str, prefix: int, version: str) -> None:
    network = timm.create_model(name, num_classes=0, **SMALL)
    plain = copy.deepcopy(network)
    assert learn_tokens(network, "blocks.1", 3, version) == ["blocks.token_learner"]  # type: ignore[arg-type]
    names = [child for child, _ in network.blocks.named_children()]
    assert names == ["0", "1", "token_learner", "2", "3"]
    costs = block_costs(network, "blocks", torch.zeros(1, 3, 32, 32))
    assert [cost.tokens - prefix for cost in costs] == [16, 16, 3, 3, 3]
    assert set(plain.state_dict()) < set(network.state_dict())
    network.eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        state = forward_until(network, "blocks.token_learner", partial(network, pixels))
        expected = forward_until(plain.eval(), "blocks.2", partial(plain, pixels))
        assert torch.equal(state, expected)
        _, found = in_two_parts(network, "blocks.token_learner", pixels)
        assert torch.equal(found, network(pixels))
    network.train()(pixels).square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all()


def test_fused_blocks_keep_all_tokens() -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL)
    new = learn_tokens(network, "blocks.1", 3, fuser=True)
    assert new == [f"blocks.{i}.{part}" for i in (2, 3) for part in ("token_learner", "fuser")]
    costs = block_costs(network, "blocks", torch.zeros(1, 3, 32, 32))
    assert [cost.tokens for cost in costs] == [17] * 4
    assert costs[2].multiplications < costs[1].multiplications
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("after", "number", "share"),
    [("blocks.5", 8, 0.52), ("blocks.8", 8, 0.76), ("blocks.8", 16, 0.77)],
)
def test_multiplications_of_vit_b(after: str, number: int, share: float) -> None:
    network = timm.create_model("vit_base_patch16_224", num_classes=0)
    learn_tokens(network, after, number)
    costs = block_costs(network, "blocks", torch.zeros(1, 3, 224, 224))
    whole = 12 * costs[0].multiplications
    assert sum(cost.multiplications for cost in costs) / whole == pytest.approx(share, abs=0.006)


def test_the_network_of_its_own() -> None:
    network = TokenLearnerViT()
    costs = block_costs(network, "blocks", torch.zeros(1, 3, 48, 48))
    assert [cost.tokens for cost in costs] == [64, 64, 64, 8, 8]
    assert network(torch.zeros(2, 3, 48, 48)).shape == (2, 128)
    assert len(TokenLearnerViT(tokens=None).blocks) == 4


def test_learned_tokens_decay_with_the_block_before_them() -> None:
    numbers = layer_numbers(TokenLearnerViT())
    learner = {n for name, n in numbers.items() if name.startswith("blocks.token_learner")}
    assert learner == {numbers["blocks.2.mlp.fc1.weight"]}
    assert numbers["blocks.3.mlp.fc1.weight"] == numbers["blocks.2.mlp.fc1.weight"] + 1


@pytest.mark.parametrize(
    ("name", "after", "message"),
    [
        ("vit_tiny_patch16_224", "blocks.9", "received 'blocks.9', which is no block"),
        ("vit_tiny_patch16_224", "blocks.3", "the last block; choose an earlier one"),
        ("beit_base_patch16_224", "blocks.1", "Beit needs all tokens in their places"),
    ],
)
def test_wrong_places_are_refused(name: str, after: str, message: str) -> None:
    network = timm.create_model(name, num_classes=0, **SMALL)
    with pytest.raises(TokenError, match=message):
        learn_tokens(network, after, 3)


def test_tokens_are_learned_once() -> None:
    with pytest.raises(TokenError, match="TokenLearnerViT already learns tokens"):
        learn_tokens(TokenLearnerViT(), "blocks.0", 3)


def test_a_grid_without_some_patches_is_refused() -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, patch_drop_rate=0.2, **SMALL)
    with pytest.raises(TokenError, match="patch_drop_rate removes patches"):
        learn_tokens(network, "blocks.0", 3, "v1.0")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": "1.2"}, "one of v1.0, v1.1 is needed"),
        ({"dim": 130}, "dim: received 130; a multiple of heads"),
        ({"image": 50}, "image: received 50; a multiple of patch"),
        ({"heads": 0}, "at least 1 is needed"),
        ({"dropout": 1.5}, "dropout: received 1.5"),
    ],
)
def test_wrong_values_of_a_backbone_have_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        image_encoder({"architecture": "token_learner_vit", **values}, None, None)
