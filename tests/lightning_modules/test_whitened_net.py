"""The whitened network: its first layer against the covariance, its norm against BatchNorm, its gradients against torch's."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from datamodules.batches import ImageBatch
from lightning_modules.callbacks.first_layer import FirstLayerFromData
from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.networks import mosaic_convolution
from lightning_modules.networks.features import BackboneError
from lightning_modules.networks.freezing import apply_plan
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


def set_up(task: ImageClassifier, **arguments: Any) -> torch.Tensor:
    """What a training begins with; gives the normalised images that the first layer was to look at."""
    images = (pictures() * 40 + 128).clamp(0, 255).to(torch.uint8)
    batch = ImageBatch(pixel_values=images, labels=torch.zeros(40), index=torch.zeros(40))
    datamodule = SimpleNamespace(first_images=lambda count: {**batch, "pixel_values": images[:count]})
    trainer: Any = SimpleNamespace(datamodule=datamodule)
    callback = FirstLayerFromData(30, **arguments)
    for stage in ("fit", "test"):
        callback.setup(trainer, task, stage)
        datamodule.first_images = None  # a test looks at no image
    pixels: torch.Tensor = task.network.features.input(images[:30])  # type: ignore[operator]
    return pixels


def test_first_layer_is_fitted_before_a_training() -> None:
    task = ImageClassifier(TINY, 3)
    before = task.state_dict()["network.features.model.whitening.filters"].clone()
    filters = whitening_filters(set_up(task))
    assert not torch.allclose(before[:12], filters)
    # In the state dict, from which a run that goes on takes it.
    assert torch.equal(task.state_dict()["network.features.model.whitening.filters"], torch.cat([filters, -filters]))
    assert task.freezing.ends == {}


def test_bias_of_the_first_layer_trains_for_some_epochs_only() -> None:
    task = ImageClassifier(TINY, 3)
    set_up(task, bias_epochs=2)
    name = "features.model.whitening.bias"
    for epoch, trains in ((0, True), (1, True), (2, False), (5, False), (1, True)):
        apply_plan(task.network, task.freezing, epoch)
        assert {n for n, p in task.network.named_parameters() if not p.requires_grad} == (set() if trains else {name})
        assert task.train().network.features.model.stages.training


def test_first_layer_of_another_network_or_of_nothing_is_told() -> None:
    with pytest.raises(BackboneError, match="no first layer that is taken from data; whitened_net has"):
        set_up(ImageClassifier({"architecture": "small_resnet", "widths": [8], "depth": 1}, 3))
    with pytest.raises(BackboneError, match="the whole backbone is frozen, its first layer too"):
        set_up(ImageClassifier(TINY, 3, freeze_backbone=True))
    with pytest.raises(BackboneError, match=r"first_layer.images: received 0; 1 or more is needed"):
        FirstLayerFromData(0)
    with pytest.raises(BackboneError, match=r"first_layer.bias_epochs: received -1; 0 or more is needed"):
        FirstLayerFromData(10, -1)


def test_what_ends_goes_together_with_unfreezing() -> None:
    task = ImageClassifier(TINY, 3)
    unfreezing = LayerUnfreezing(start_layer="stages.1")
    unfreezing.give_plan(task)
    set_up(task, bias_epochs=2)
    unfreezing.give_plan(task)  # as a test does after the training
    assert task.freezing.ends == {"features.model.whitening.bias": 2}
    assert task.freezing.first_epoch("features.model.stages.0.conv1.weight") is None


def test_norm_is_batchnorm_with_a_gain_of_one() -> None:
    torch.manual_seed(0)
    ours, theirs = BiasNorm(5), nn.BatchNorm2d(5, momentum=0.05)
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
    made = mosaic(stack, gap=1, side=14)
    assert made.shape == (2, 2, 12, 10)  # three rows of two pictures each, in two mosaics
    for i in range(7):
        row, column = divmod(i % 6, 2)
        place = made[i // 6, :, 4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
        assert torch.equal(place[:, :3, :4], stack[i])
        assert place.sum() == stack[i].sum()
    assert made.sum() == stack.sum()


def test_convolution_is_trained_by_mosaic_in_bfloat16_with_amx_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    by_mosaic = convolve_by_mosaic

    def counted(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        calls.append((x.dtype, weight.dtype))
        return by_mosaic(x, weight)

    monkeypatch.setattr(mosaic_convolution, "convolve_by_mosaic", counted)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
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
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
    assert len(calls) == 1
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(layer.weight.grad, expected, atol=0.02 * float(expected.abs().max()), rtol=0)
