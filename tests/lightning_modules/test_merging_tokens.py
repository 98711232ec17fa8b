"""ToMe: the formulas written out in numpy, places of tokens, counts, and what is refused."""

import copy
from functools import partial

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from lightning_modules.networks.dividing.counting import block_costs, multiplications
from lightning_modules.networks.tokens.errors import TokenError
from lightning_modules.networks.tokens.merging import (
    MergingBlock,
    attend,
    merge,
    merge_tokens,
    merged_per_block,
)

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 3}


def vit(name: str = "vit_tiny_patch16_224", **more: object) -> nn.Module:
    """A small network with random weights, in eval mode."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(name, num_classes=0, **{**SMALL, **more}).eval()
    for parameter in network.parameters():  # cls_token and biases begin near 0
        nn.init.normal_(parameter, std=0.2)
    return network


def pixels(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 4 - 2


def merged_in_numpy(
    tokens: np.ndarray, sizes: np.ndarray, keys: np.ndarray, merged: int, protected: int
) -> tuple[np.ndarray, np.ndarray]:
    """The paper's bipartite soft matching for one image, with loops: [N, C], [N], [N, d]."""
    keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    even, odd = list(range(0, len(keys), 2)), list(range(1, len(keys), 2))
    edges = []
    for a in even:
        if a >= protected:
            scores = [keys[a] @ keys[b] if b >= protected else -np.inf for b in odd]
            edges.append((max(scores), a, odd[int(np.argmax(scores))]))
    edges = sorted(edges, key=lambda edge: -edge[0])[:merged]
    sums = {place: tokens[place] * sizes[place] for place in range(len(keys))}
    total = dict(enumerate(sizes))
    for _, source, target in edges:
        sums[target] = sums[target] + tokens[source] * sizes[source]
        total[target] = total[target] + sizes[source]
    gone = {source for _, source, _ in edges}
    order = [p for p in range(protected)]
    order += [p for p in even if p not in gone and p >= protected]
    order += [p for p in odd if p >= protected]
    return np.stack([sums[p] / total[p] for p in order]), np.array([total[p] for p in order])


@pytest.mark.parametrize("protected", [0, 1, 2, 5])
@pytest.mark.parametrize("merged", [1, 4])
def test_merging_equals_the_formula(protected: int, merged: int) -> None:
    random = np.random.default_rng(protected)
    tokens, keys = random.normal(size=(3, 17, 6)), random.normal(size=(3, 17, 4))
    sizes = random.integers(1, 5, size=(3, 17)).astype(float)
    state = torch.from_numpy(np.concatenate([tokens, sizes[..., None]], axis=2))
    ours = merge(state, torch.from_numpy(keys), merged, protected).numpy()
    assert ours.shape == (3, 17 - merged, 7)
    for image in range(3):
        values, total = merged_in_numpy(tokens[image], sizes[image], keys[image], merged, protected)
        np.testing.assert_allclose(ours[image, :, :-1], values, atol=1e-6)
        np.testing.assert_array_equal(ours[image, :, -1], total)


def test_attention_equals_the_formula() -> None:
    attention = vit().double().blocks[0].attn  # type: ignore[index, union-attr]
    x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(2)).double()
    sizes = torch.tensor([1.0, 2, 3, 1, 1, 4, 1, 1, 2]).double()[None, :, None].expand(2, -1, -1)
    with torch.no_grad():
        ours, keys = attend(attention, x, sizes)
        plain, _ = attend(attention, x, None)
        torch.testing.assert_close(plain, attention(x))
    weight, bias = (p.detach().double().numpy() for p in attention.qkv.parameters())
    qkv = (x.double().numpy() @ weight.T + bias).reshape(2, 9, 3, 3, 8)
    q, k, v = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    scores = (
        q @ k.transpose(0, 1, 3, 2) / np.sqrt(8) + np.log(sizes.numpy())[:, :, 0][:, None, None]
    )
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = (weights @ v).transpose(0, 2, 1, 3).reshape(2, 9, 24)
    weight, bias = (p.detach().double().numpy() for p in attention.proj.parameters())
    np.testing.assert_allclose(ours.numpy(), mixed @ weight.T + bias, atol=1e-6)
    np.testing.assert_allclose(keys.numpy(), k.mean(axis=1), atol=1e-6)


def test_no_merging_leaves_the_network_untouched() -> None:
    network = vit()
    before = network(pixels())
    for merged in (0, [0, 0, 0]):
        other = copy.deepcopy(network)
        merge_tokens(other, merged)
        assert not any(isinstance(module, MergingBlock) for module in other.modules())
        assert torch.equal(other(pixels()), before)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch16_224"]
)
def test_parameters_keep_their_names_and_values(name: str) -> None:
    network = vit(name)
    merging = copy.deepcopy(network)
    merge_tokens(merging, 2)
    before, after = network.state_dict(), merging.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_equal_tokens_are_merged_without_a_change() -> None:
    """Tokens of equal patches, without positions: attention proportional to sizes is exact."""
    network = vit()
    with torch.no_grad():
        network.pos_embed.zero_()  # type: ignore[operator, union-attr]
    image = pixels()[:, :, :8, :8].repeat(1, 1, 4, 4)
    merging, plain = copy.deepcopy(network), copy.deepcopy(network)
    merge_tokens(merging, 5)
    merge_tokens(plain, 5, proportional=False)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(merging(image), expected, rtol=1e-6, atol=1e-6)
        assert (plain(image) - expected).abs().max() > 1e-3


def test_average_pooling_weighs_tokens_by_their_sizes() -> None:
    network = vit(global_pool="avg", class_token=False)
    with torch.no_grad():
        network.pos_embed.zero_()  # type: ignore[operator, union-attr]
    image = pixels()[:, :, :, :8].repeat(1, 1, 1, 4)  # four kinds of patches, four of each
    merging = copy.deepcopy(network)
    merge_tokens(merging, [2, 2, 2])
    with torch.no_grad():
        torch.testing.assert_close(merging(image), network(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "merged", "expected"),
    [
        ("deit_tiny_distilled_patch16_224", 13, [198 - 13 * i for i in range(1, 13)]),
        ("vit_tiny_patch16_224", 16, [*(197 - 16 * i for i in range(1, 12)), 11]),
    ],
)
def test_tokens_of_each_block_are_those_of_the_paper(
    name: str, merged: int, expected: list[int]
) -> None:
    network = timm.create_model(name, num_classes=0, embed_dim=24, num_heads=3)
    merge_tokens(network, merged)
    sizes: list[Tensor] = []
    for block in network.blocks:
        block.register_forward_hook(lambda _, __, state: sizes.append(state[0, :, 24:].sum()))
    with torch.no_grad():
        costs = block_costs(network, "blocks", torch.zeros(1, 3, 224, 224))
    assert [cost.tokens for cost in costs] == expected
    assert {float(size) for size in sizes[:-1]} == {198.0 if "distilled" in name else 197.0}


def test_multiplications_are_those_of_the_paper() -> None:
    image, counts = torch.zeros(1, 3, 224, 224), []
    for merged in (0, 8, 13, 16):
        network = timm.create_model("vit_base_patch16_224", num_classes=0)
        merge_tokens(network, merged)
        costs = block_costs(network, "blocks", image)
        counts.append(sum(cost.multiplications for cost in costs))
        whole = counts[-1] + 196 * (16 * 16 * 3) * 768  # with the patch embedding
        assert multiplications(network, partial(network, image)) == whole
    assert counts[0] == 12 * (12 * 197 * 768**2 + 2 * 197**2 * 768)
    shares = [count / counts[0] for count in counts[1:]]
    assert shares == pytest.approx([0.74, 0.59, 0.50], abs=0.006)


def test_counting_leaves_the_modes_of_modules() -> None:
    network = vit().train()
    network.blocks[0].eval()  # type: ignore[index, operator, union-attr]
    before = [module.training for module in network.modules()]
    multiplications(network, partial(network, pixels(1)))
    assert [module.training for module in network.modules()] == before


def test_class_and_distillation_tokens_keep_their_places() -> None:
    network = vit("deit_tiny_distilled_patch16_224")
    merge_tokens(network, 4)
    with torch.no_grad():  # attention and MLP add nothing: tokens change by merging alone
        for block in network.blocks:  # type: ignore[union-attr]
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.zero_()
                layer.bias.zero_()
    states: list[Tensor] = []
    for block in network.blocks:  # type: ignore[union-attr]
        block.register_forward_hook(lambda _, inputs, output: states.extend([*inputs, output]))
    network(pixels())
    for state in states:
        torch.testing.assert_close(state[:, :2, :24], states[0][:, :2])
        if state.shape[-1] == 25:
            assert (state[:, :2, 24] == 1).all()


def test_schedules() -> None:
    assert merged_per_block(13, 0, 12) == [13] * 12
    assert merged_per_block(11, -1, 12) == list(range(22, -1, -2))
    assert sum(merged_per_block(11, 0.5, 12)) == pytest.approx(11 * 12, abs=12)
    assert merged_per_block([3, 0, 1], 0, 3) == [3, 0, 1]


@pytest.mark.parametrize(
    ("merged", "inflection", "message"),
    [
        ([1, 2], 0.0, "received 2 numbers; give 3, one for each block"),
        ([1, -2, 3], 0.0, "received -2 for a block; give 0 or more"),
        (-5, 0.0, "received -5 for a block"),
        ([1, 2, 3], -1.0, "a number for each block and inflection -1.0; give only one"),
    ],
)
def test_wrong_numbers_are_refused(
    merged: int | list[int], inflection: float, message: str
) -> None:
    with pytest.raises(TokenError, match=message):
        merge_tokens(vit(), merged, inflection)


def test_merging_has_the_gradient_of_its_formula() -> None:
    random = torch.Generator().manual_seed(3)
    state = torch.rand(2, 9, 4, generator=random, dtype=torch.float64) + 1
    keys = torch.randn(2, 9, 3, generator=random, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: merge(x, keys, 3, protected=1), state.requires_grad_()
    )


def test_all_parameters_get_a_gradient() -> None:
    network = vit().train()
    merge_tokens(network, 3)
    network(pixels()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias of the keys adds the same number to all scores of a query.
        own = parameter.grad[:24] if name.endswith("qkv.bias") else parameter.grad
        assert float(own.abs().sum()) > 0, name


def test_autocast_does_not_change_which_tokens_are_merged() -> None:
    random = torch.Generator().manual_seed(4)
    state = torch.rand(2, 101, 9, generator=random) + 1
    keys = torch.randn(2, 101, 8, generator=random)
    expected = merge(state, keys, 40, protected=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(merge(state, keys, 40, protected=1), expected)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_threads_do_not_matter(precision: torch.dtype) -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=3).eval()
    merge_tokens(network, 13)
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    threads, outputs = torch.get_num_threads(), []
    half = precision == torch.bfloat16
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.no_grad(), torch.autocast("cpu", precision, enabled=half):
                outputs.append(network(image))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("name", "more", "reason"),
    [
        ("beit_base_patch16_224", {}, "Beit adds the positions of tokens in its attention"),
        ("eva02_tiny_patch14_224", None, "Eva adds the positions of tokens in its attention"),
        ("swin_tiny_patch4_window7_224", None, "SwinTransformer attends within windows"),
        ("vgg11", None, "VGG is no plain vision transformer"),
        ("vit_tiny_patch16_224", {"global_pool": "map"}, "pools with 'map'"),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}, "normalises tokens"),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "pool_include_prefix": True}, "averages its class token"),
        ("vit_base_patch16_rpn_224", {}, "blocks or attention of another kind"),
    ],
)  # fmt: skip
def test_what_cannot_merge_is_refused(
    name: str, more: dict[str, object] | None, reason: str
) -> None:
    network = timm.create_model(name, num_classes=0, **({} if more is None else {**SMALL, **more}))
    with pytest.raises(TokenError, match=reason):
        merge_tokens(network, 3)
