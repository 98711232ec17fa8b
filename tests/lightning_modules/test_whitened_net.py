"""The whitened network: its first layer against the covariance, its norm against BatchNorm, its gradients against torch's."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from datamodules.batches import ImageBatch
from lightning_modules.callbacks.first_layer import FirstLayerFromData
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.networks import mosaic_convolution
from lightning_modules.networks.features import BackboneError
from lightning_modules.networks.mosaic_convolution import Convolution, convolve_by_mosaic, mosaic
from lightning_modules.networks.whitened_net import BiasNorm, WhitenedNet, whitening_filters

TINY = {"architecture": "whitened_net", "widths": [8, 8, 8]}


def pictures(count: int = 40) -> torch.Tensor:
    """Noise whose neighbours and colours are alike, as in photographs."""
    noise = torch.randn(count, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    return functional.avg_pool2d(noise + 2 * noise.mean(1, keepdim=True), 5, 1)


def test_outputs_of_the_first_layer_are_uncorrelated_and_of_unit_variance() -> None:
    network = WhitenedNet([8])
    network.fit_first_layer(pictures())
    outputs = network.whitening(pictures()).transpose(0, 1).flatten(1)
    first, negatives = outputs[:12].double(), outputs[12:].double()
    torch.testing.assert_close(negatives, -first)
    shares = torch.linalg.eigvalsh(torch.cov(functional.unfold(pictures(), 2).transpose(0, 1).flatten(1).double()))
    # Short of 1 by what is added to the eigenvalues.
    torch.testing.assert_close(torch.cov(first), (shares / (shares + 5e-4)).diag(), atol=1e-4, rtol=0)
    assert shares.max() > 20 * shares.min()  # there was something to whiten


def test_filters_are_no_parameters_and_stay_while_all_else_trains() -> None:
    network = WhitenedNet([8]).train()
    network.fit_first_layer(pictures())
    before = network.whitening.filters.clone()
    network(pictures()).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    assert torch.equal(network.whitening.filters, before)
    assert "whitening.filters" in network.state_dict()


def fitted(task: ImageClassifier, ckpt_path: str | None = None) -> torch.Tensor:
    """The first layer's filters once a training has been set up."""
    images = (pictures() * 40 + 128).clamp(0, 255).to(torch.uint8)
    batch = ImageBatch(pixel_values=images, labels=torch.zeros(40), index=torch.zeros(40))
    datamodule = SimpleNamespace(first_images=lambda count: {**batch, "pixel_values": images[:count]})
    trainer: Any = SimpleNamespace(ckpt_path=ckpt_path, datamodule=datamodule)
    FirstLayerFromData(30).setup(trainer, task, "fit")
    pixels = task.network.features.input(images[:30])  # type: ignore[operator]
    assert (ckpt_path is None) == torch.equal(task.state_dict()[FILTERS][:12], whitening_filters(pixels))
    return task.state_dict()[FILTERS]


FILTERS = "network.features.model.whitening.filters"


def test_first_layer_is_fitted_before_a_training_and_not_before_one_that_goes_on() -> None:
    filters = fitted(ImageClassifier(TINY, 3)).clone()
    resumed = ImageClassifier(TINY, 3)
    assert torch.equal(fitted(resumed, "last.ckpt"), ImageClassifier(TINY, 3).state_dict()[FILTERS])
    resumed.load_state_dict({**resumed.state_dict(), FILTERS: filters})
    assert torch.equal(resumed.state_dict()[FILTERS], filters)
    with pytest.raises(BackboneError, match="no first layer that is taken from data; whitened_net has"):
        fitted(ImageClassifier({"architecture": "small_resnet", "widths": [8], "depth": 1}, 3))
    with pytest.raises(BackboneError, match="received 0; 1 or more are needed"):
        FirstLayerFromData(0)


def test_norm_is_batchnorm_with_a_gain_of_one() -> None:
    torch.manual_seed(0)
    ours, theirs = BiasNorm(5), nn.BatchNorm2d(5, momentum=0.4)
    with torch.no_grad():
        ours.bias.copy_(torch.randn(5))
        theirs.bias.copy_(ours.bias)
    x = 3 * torch.randn(6, 5, 4, 4) + 1
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert [name for name, _ in ours.named_parameters()] == ["bias"]


@pytest.mark.parametrize(("count", "height", "width"), [(5, 3, 3), (40, 7, 7), (9, 7, 4), (2, 20, 40)])
def test_gradients_by_mosaic_are_those_of_conv2d(count: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(count, 4, height, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(count, 6, height, width, dtype=torch.float64)
    expected = functional.conv2d(x, weight, padding=1)
    found = convolve_by_mosaic(x, weight)
    torch.testing.assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight), gradient) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_mosaic_has_every_picture_once_with_zeros_between() -> None:
    stack = torch.arange(1.0, 1 + 7 * 2 * 3 * 4).view(7, 2, 3, 4)
    made = mosaic(stack, gap=1, side=10)
    assert made.shape == (2, 2, 8, 10)  # two rows of two pictures each, in two mosaics
    for i in range(7):
        row, column = divmod(i % 4, 2)
        place = made[i // 4, :, 4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
        assert torch.equal(place[:, :3, :4], stack[i])
        assert place.sum() == stack[i].sum()
    assert made.sum() == stack.sum()


def test_convolution_is_trained_by_mosaic_in_bfloat16_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    by_mosaic = convolve_by_mosaic

    def counted(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        calls.append((x.dtype, weight.dtype))
        return by_mosaic(x, weight)

    monkeypatch.setattr(mosaic_convolution, "convolve_by_mosaic", counted)
    torch.manual_seed(0)
    layer, x = Convolution(4, 6), torch.randn(3, 4, 7, 7)
    layer(x).square().sum().backward()
    expected, layer.weight.grad = layer.weight.grad, None
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(3, 4, 15, 15))
        with torch.no_grad():
            layer(x)
        assert not calls
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert calls == [(torch.bfloat16, torch.bfloat16)]
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(layer.weight.grad, expected, atol=0.02 * float(expected.abs().max()), rtol=0)
