"""FDViT: counts of parameters and multiplications, downsampling, the reconstruction loss."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.image import image_encoder
from lightning_modules.networks.dividing.counting import multiplications
from lightning_modules.networks.freezing.layers import layer_numbers
from lightning_modules.networks.tokens.errors import TokenError
from lightning_modules.networks.tokens.fdvit import (
    FDViT,
    FlexibleDownsampling,
    without_some_tokens,
)

TINY = ()
S = (16, 8, (27, 19, 14, 10, 7), (144, 204, 288, 408, 570), (3, 6, 9, 12, 15))
B = (14, 7, (31, 22, 16, 11, 8), (256, 360, 512, 720, 1024), (4, 8, 8, 16, 16), (3, 3, 3, 2, 2))
CIFAR = (4, 2, (15, 11, 8), (64, 92, 126), (2, 4, 6), (2, 3, 3))
SMALL = (4, 2, (15, 11, 8), (12, 16, 20), (2, 2, 2), (1, 1, 1))


def count(network: nn.Module, classes: int) -> int:
    """Parameters with a linear head."""
    width = network.norm.normalized_shape[0]  # type: ignore[union-attr, index]
    return sum(p.numel() for p in network.parameters()) + (width + 1) * classes


@pytest.mark.parametrize(
    ("sizes", "classes", "plain", "with_decoders"),
    [
        (TINY, 1000, 4_586_720, 5_383_722),
        (S, 1000, 21_558_058, 25_502_830),
        (B, 1000, 68_030_600, 80_474_048),
        (CIFAR, 10, 1_161_618, None),
    ],
)
def test_counts_of_parameters(
    sizes: tuple[object, ...], classes: int, plain: int, with_decoders: int | None
) -> None:
    with torch.device("meta"):
        network = FDViT(*sizes)  # type: ignore[arg-type]
        assert count(network, classes) == plain
        network.add_decoders()
    if with_decoders is not None:
        assert count(network, classes) == with_decoders


@pytest.mark.parametrize(
    ("sizes", "side", "billions"),
    [(TINY, 224, 0.82), (S, 224, 3.31), (B, 224, 14.04), (CIFAR, 32, 0.13)],
)
def test_multiplications(sizes: tuple[object, ...], side: int, billions: float) -> None:
    with torch.device("meta"):
        network = FDViT(*sizes)  # type: ignore[arg-type]
        assert network.input_config == {"size": [side, side]}
        counted = multiplications(network, partial(network, torch.zeros(1, 3, side, side)))
    assert counted / 1e9 == pytest.approx(billions, abs=0.006)


def test_downsampling_equals_the_formula() -> None:
    """Bilinear sampling at a regular grid from corner to corner, written out in numpy."""
    torch.manual_seed(0)
    layer, x = FlexibleDownsampling(6, 6, 4), torch.randn(2, 7, 7, 6)
    with torch.no_grad():
        layer.convolution.weight.zero_()
        layer.convolution.bias.zero_()  # type: ignore[union-attr]
        for channel in range(6):
            layer.convolution.weight[channel, channel, 1, 1] = 1  # the identity
        ours = layer(x).numpy()
        values = layer.norm(x).double().numpy()
    positions = np.linspace(0, 6, 4)
    for i, y in enumerate(positions):
        for j, z in enumerate(positions):
            y0, z0 = min(int(y), 5), min(int(z), 5)
            a, b = y - y0, z - z0
            expected = (
                (1 - a) * (1 - b) * values[:, y0, z0]
                + (1 - a) * b * values[:, y0, z0 + 1]
                + a * (1 - b) * values[:, y0 + 1, z0]
                + a * b * values[:, y0 + 1, z0 + 1]
            )
            np.testing.assert_allclose(ours[:, i, j], expected, atol=1e-6)


def test_equal_sizes_are_not_resampled() -> None:
    layer, x = FlexibleDownsampling(6, 8, 5), torch.randn(2, 5, 5, 6)
    expected = layer.convolution(layer.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), expected)


def test_left_out_tokens_keep_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 12, 12, 3) + 1
    masked = without_some_tokens(x, 0.2)
    gone = (masked == 0).all(dim=-1)
    assert torch.equal(gone, (masked == 0).any(dim=-1))  # whole tokens
    assert float(gone.float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(masked.mean()) == pytest.approx(float(x.mean()), rel=0.01)
    assert torch.equal(without_some_tokens(x, 0.0), x)


def test_reconstruction_equals_the_formula() -> None:
    torch.manual_seed(0)
    network = FDViT(*SMALL)  # type: ignore[arg-type]
    network.add_decoders()
    x = torch.rand(2, 3, 32, 32)
    features, loss = network.forward_with_reconstruction(x, masked=0.0)
    assert torch.equal(features, network(x))
    losses, state = [], network.forward_stem(x)
    assert network.decoders is not None
    for stage, after, decoder in zip(
        network.stages, [*network.stages][1:], network.decoders, strict=False
    ):
        state = stage(state)
        decoded = decoder(after[0](state).permute(0, 3, 1, 2))  # type: ignore[index, operator]
        back = functional.interpolate(
            decoded, state.shape[1:3], mode="bilinear", align_corners=True
        )
        losses.append((back.permute(0, 2, 3, 1) - state).square().mean())
    torch.testing.assert_close(loss, sum(losses) / 2)  # type: ignore[operator]
    loss.backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert all(name.startswith(("stages.2.1", "norm")) for name in without)


def test_left_out_tokens_are_not_seen_by_the_encoder() -> None:
    """The loss with masks, written out with the same random numbers, and its gradients."""
    torch.manual_seed(0)
    network = FDViT(*SMALL)  # type: ignore[arg-type]
    network.add_decoders()
    network.double()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    torch.manual_seed(1)
    _, loss = network.forward_with_reconstruction(x, masked=0.4)
    torch.manual_seed(1)
    losses, state = [], network.forward_stem(x)
    assert network.decoders is not None
    for number, decoder in enumerate(network.decoders):
        state = network.stages[number](state)
        kept = (torch.rand_like(state[..., :1]) >= 0.4).double()
        assert 0 < kept.mean() < 1
        encoder = network.stages[number + 1][0]  # type: ignore[index]
        decoded = decoder(encoder(state * kept / 0.6).permute(0, 3, 1, 2))
        back = functional.interpolate(
            decoded, state.shape[1:3], mode="bilinear", align_corners=True
        )
        losses.append((back.permute(0, 2, 3, 1) - state).square().mean())
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(loss, expected)
    parameters = [p for name, p in network.named_parameters() if name.startswith("stages.0")]
    ours, theirs = (torch.autograd.grad(value, parameters) for value in (loss, expected))
    torch.testing.assert_close(ours, theirs)  # the target is not detached


def test_decoders_do_not_change_the_decay_of_other_layers() -> None:
    network = FDViT(*SMALL)  # type: ignore[arg-type]
    before = layer_numbers(network)
    network.add_decoders()
    after = layer_numbers(network)
    assert {name: after[name] for name in before} == before
    assert max(after.values()) == max(before.values())


def test_threads_do_not_matter() -> None:
    torch.manual_seed(0)
    network, x = FDViT(*CIFAR).eval(), torch.rand(32, 3, 32, 32)  # type: ignore[arg-type]
    threads, outputs = torch.get_num_threads(), list[Tensor]()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            outputs.append(network(x))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": (2, 4)}, "one number for each stage"),
        ({"dims": (65, 92, 126, 184, 260)}, "65 channels are no multiple of 2 heads"),
        ({"sizes": (27, 19, 20, 10, 7)}, "give no stage more tokens"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FDViT(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="patches, and sizes begins with 27"):
        FDViT()(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sizes": [-1, 2, 3, 4, 5]}, "at least 1 is needed"),
        ({"heads": [0, 4, 6, 8, 10]}, "at least 1 is needed"),
        ({"drop_path": 1.5}, "drop_path: received 1.5"),
        ({"patch": "16"}, "patch: received '16'"),
    ],
)
def test_wrong_values_of_a_backbone_have_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        image_encoder({"architecture": "fdvit", **values}, None, None)


def test_an_image_of_another_size_has_advice() -> None:
    with pytest.raises(BackboneError, match="use 224 x 224, or other arguments"):
        image_encoder({"architecture": "fdvit"}, None, 64)


def test_one_stage_has_nothing_to_reconstruct() -> None:
    backbone = {
        "architecture": "fdvit", "patch": 4, "stride": 4, "sizes": [8], "dims": [8], "heads": [2], "depth": [1],
    }  # fmt: skip
    with pytest.raises(TokenError, match=r"one stage has no downsampling.* model.reconstruction=0"):
        image_encoder(backbone, None, None, reconstructed=True)
