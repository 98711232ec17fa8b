"""Probes equal an independent minimisation; states and blocks of networks are the right ones."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from datamodules.batches import ImageBatch
from lightning_modules.networks.backbones.image import image_encoder
from lightning_modules.networks.backbones.image_encoder import ImageEncoder
from lightning_modules.networks.dividing.layer_states import PooledState
from lightning_modules.networks.freezing.blocks import blocks_of
from lightning_modules.networks.linear_probe import fit_probe
from tests.lightning_modules.test_two_parts import encoder_of, texts

SPLIT = 150


def samples(classes: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    values = random.normal(2, 3, (250, 6))
    weight = random.normal(size=(6, classes))
    labels = (values @ weight + random.normal(scale=3, size=(250, classes))).argmax(1)
    return values, labels


@pytest.mark.parametrize("classes", [2, 4])
def test_a_probe_has_the_least_penalised_loss(classes: int) -> None:
    """The reference minimises the stated objective by Newton's method, in torch."""
    values, labels = samples(classes)
    train, val = (values[:SPLIT], labels[:SPLIT]), (values[SPLIT:], labels[SPLIT:])
    found = fit_probe(train, val, classes, penalties=[0.01])
    mean, scale = train[0].mean(0), train[0].std(0)
    x, y = torch.tensor((train[0] - mean) / scale), torch.tensor(train[1])
    rows = 1 if classes == 2 else classes

    def log_probabilities(flat: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        matrix = flat.view(rows, -1)
        logits = inputs @ matrix[:, :-1].T + matrix[:, -1]
        if rows == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits.log_softmax(1)

    def objective(flat: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.nll_loss(log_probabilities(flat, x), y)
        return loss + 0.01 / 2 * flat.view(rows, -1)[:, :-1].square().sum()

    flat = torch.zeros(rows * 7, dtype=torch.float64, requires_grad=True)
    for _ in range(30):
        (gradient,) = torch.autograd.grad(objective(flat), flat)
        curvature = torch.autograd.functional.hessian(objective, flat)
        step = torch.linalg.lstsq(curvature, gradient[:, None]).solution[:, 0]
        flat = (flat - step).detach().requires_grad_()
    expected = log_probabilities(flat, torch.tensor((val[0] - mean) / scale)).exp()
    np.testing.assert_allclose(found.probabilities, expected.detach().numpy(), atol=2e-3)
    own = found.probabilities[np.arange(len(val[1])), val[1]]
    assert found.loss == pytest.approx(-np.log(own).mean())


def test_validation_chooses_the_penalty() -> None:
    values, labels = samples(3)
    train, val = (values[:SPLIT], labels[:SPLIT]), (values[SPLIT:], labels[SPLIT:])
    penalties = [100.0, 0.01, 1e-9]
    losses = [fit_probe(train, val, 3, [penalty]).loss for penalty in penalties]
    chosen = fit_probe(train, val, 3, penalties)
    assert chosen.penalty == penalties[int(np.argmin(losses))]
    assert chosen.loss == pytest.approx(min(losses), abs=1e-3)


def test_a_class_without_a_training_sample_has_probability_0() -> None:
    values, labels = samples(3)
    some = labels != 1
    probe = fit_probe((values[some], labels[some]), (values, labels), 3)
    assert (probe.probabilities[:, 1] == 0).all()
    assert np.isfinite(probe.loss)


def test_one_class_alone_is_always_predicted() -> None:
    values, labels = samples(3)
    one = labels == 2
    probe = fit_probe((values[one], labels[one]), (values, labels), 3)
    assert (probe.probabilities == [0, 0, 1]).all()


def test_states_of_texts_are_pooled_over_their_tokens() -> None:
    encoder, batch = encoder_of("bert").eval(), texts()
    with torch.no_grad():
        hidden = encoder.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            output_hidden_states=True,
        ).hidden_states
        found = encoder.pooled_states(["encoder.layer.0", "encoder.layer.1"], batch)
    for layer, states in zip(("encoder.layer.0", "encoder.layer.1", None), hidden, strict=True):
        means = [own[:n].mean(0) for own, n in zip(states, (9, 4, 6), strict=True)]
        torch.testing.assert_close(found.pop(PooledState(layer, "mean")), torch.stack(means))
        assert torch.equal(found.pop(PooledState(layer, "cls")), states[:, 0])
    assert not found


def test_the_last_token_of_a_decoder_stands_for_the_text() -> None:
    encoder, batch = encoder_of("gpt2").eval(), texts()
    with torch.no_grad():
        found = encoder.pooled_states(["h.1"], batch)
        states = encoder(batch).values
    last = torch.stack([own[n - 1] for own, n in zip(states, (9, 4, 6), strict=True)])
    assert torch.equal(found[PooledState(None, "last")], last)


def images(encoder: ImageEncoder) -> ImageBatch:
    height, width = encoder.config["size"] or (32, 32)
    pixels = torch.randint(256, (3, 3, height, width), dtype=torch.uint8)
    return ImageBatch(pixel_values=pixels, labels=torch.zeros(3), index=torch.arange(3))


@pytest.mark.parametrize(
    ("architecture", "layer", "axes"),
    [
        ("resnet18", "layer3.0", (2, 3)),
        ("swin_tiny_patch4_window7_224", "layers.3.downsample", (1, 2)),
    ],
)
def test_states_of_images_are_pooled_over_their_pixels(
    architecture: str, layer: str, axes: tuple[int, int]
) -> None:
    encoder = image_encoder({"architecture": architecture}, None, None).eval()
    batch = images(encoder)
    with torch.no_grad():
        found = encoder.pooled_states([layer], batch)
        state = encoder.forward_until(layer, batch).values
        assert torch.equal(found[PooledState(layer, "mean")], state.mean(axes))
        assert torch.equal(found[PooledState(None, "features")], encoder(batch).values)


def test_the_class_token_is_not_among_the_patches() -> None:
    small = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}
    architecture = "deit_tiny_distilled_patch16_224"  # two tokens before the patches
    encoder = image_encoder({"architecture": architecture, **small}, None, None).eval()
    batch = images(encoder)
    with torch.no_grad():
        found = encoder.pooled_states(["blocks.1"], batch)
        state = encoder.forward_until("blocks.1", batch).values
    assert torch.equal(found[PooledState("blocks.1", "cls")], state[:, 0])
    torch.testing.assert_close(found[PooledState("blocks.1", "mean")], state[:, 2:].mean(1))


BLOCKS = {
    "resnet18": ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0", "layer4.1"],
    "vit_tiny_patch16_224": [f"blocks.{i}" for i in range(12)],
    "convnext_atto": [
        "stages.0.blocks.0", "stages.0.blocks.1", "stages.1.downsample", "stages.1.blocks.1", "stages.2.downsample",
        *(f"stages.2.blocks.{i}" for i in range(1, 6)), "stages.3.downsample", "stages.3.blocks.1",
    ],
}  # fmt: skip


@pytest.mark.parametrize("architecture", BLOCKS)
def test_blocks(architecture: str) -> None:
    encoder = image_encoder({"architecture": architecture}, None, None)
    blocks = blocks_of(encoder.model, encoder.record())
    assert [block.layer for block in blocks] == BLOCKS[architecture]
    whole = timm.create_model(architecture, num_classes=0)
    before = sum(
        parameter.numel()
        for name, parameter in whole.named_parameters()
        if name.startswith(("conv1", "bn1", "stem", "patch_embed", "cls_token", "pos_embed"))
    )
    total = sum(parameter.numel() for parameter in whole.parameters())
    assert sum(block.parameters for block in blocks) == total - before


def test_blocks_of_texts_end_with_what_follows_the_list() -> None:
    encoder = encoder_of("distilbert")
    names = [block.layer for block in blocks_of(encoder.model, encoder.record())]
    assert names == ["transformer.layer.0", "transformer.layer.1"]


@pytest.mark.parametrize(
    ("architecture", "options", "layer", "channels", "poolings"),
    [
        ("samvit_base_patch16", {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 2}, "blocks.1", 24, {"mean"}),
        ("cait_xxs24_224", {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 2}, "blocks.1", 24, {"mean"}),
        ("volo_d1_224", {"img_size": 64}, "network.2.1", 384, {"mean"}),
    ],
)  # fmt: skip
def test_channels_are_found_without_timms_description(
    architecture: str, options: dict[str, Any], layer: str, channels: int, poolings: set[str]
) -> None:
    encoder = image_encoder({"architecture": architecture, **options}, None, 64).eval()
    batch = images(encoder)
    with torch.no_grad():
        found = encoder.pooled_states([layer], batch)
        state = encoder.forward_until(layer, batch).values
    assert {pooled.pooling for pooled in found if pooled.layer == layer} == poolings
    assert found[PooledState(layer, "mean")].shape == (3, channels)
    torch.testing.assert_close(found[PooledState(layer, "mean")], state.flatten(1, -2).mean(1))


def test_a_layer_that_runs_earlier_than_it_is_registered_is_no_block() -> None:
    encoder = image_encoder({"architecture": "twins_svt_small"}, None, None)
    names = [block.layer for block in blocks_of(encoder.model, encoder.record())]
    assert "pos_block.0" not in names
    assert names
    order = [name for name, _ in encoder.model.named_modules()]
    places = [order.index(name) for name in names]
    assert places == sorted(places)
