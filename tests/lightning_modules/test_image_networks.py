"""Image backbones with every head: one contract, published sizes, torchvision's input, weights."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.v2 import functional as reference

from datamodules.batches import ImageBatch
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.networks.backbones.features import BackboneError, Features
from lightning_modules.networks.backbones.image import image_encoder
from lightning_modules.networks.backbones.pixels import PixelInput, resize
from lightning_modules.networks.backbones.small_resnet import opponent_filters
from lightning_modules.networks.heads.classification import (
    BiGRUHead,
    HeadError,
    HeadFactory,
    LinearHead,
    MLPHead,
)

VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
BACKBONES = {
    "vgg": {"architecture": "vgg11", "mlp_ratio": 0.01, "size": [32, 32]},
    "densenet": {
        "architecture": "densenet121",
        "growth_rate": 8,
        "block_config": [1, 1, 1, 1],
        "size": [32, 32],
    },
    "deit": {"architecture": "deit_base_distilled_patch16_224", **VIT},
    "beit": {"architecture": "beit_base_patch16_224", **VIT},
    "vit": {"architecture": "vit_tiny_patch16_224", **VIT},
    "convnext": {
        "architecture": "convnext_tiny",
        "depths": [1, 1, 1, 1],
        "dims": [8, 16, 16, 24],
        "size": [32, 32],
    },
    "resnet": {"architecture": "resnet18", "size": [32, 32]},
    "small_resnet": {"architecture": "small_resnet", "widths": [8, 16], "depth": 1},
    "flat_pixels": {"architecture": "flat_pixels", "size": [8, 8]},
    "token_learner_vit": {
        "architecture": "token_learner_vit",
        "image": 16,
        "patch": 4,
        "dim": 24,
        "depth": 3,
        "heads": 2,
        "tokens": 3,
        "after": "blocks.1",
    },
    "fdvit": {
        "architecture": "fdvit",
        "patch": 4,
        "stride": 2,
        "sizes": [15, 11, 8],
        "dims": [8, 12, 16],
        "heads": [2, 2, 2],
        "depth": [1, 1, 1],
    },
}

HEADS = {"linear": LinearHead, "mlp": partial(MLPHead, hidden=[12, 8])}


def batch(count: int = 4, side: int = 20) -> ImageBatch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return ImageBatch(
        pixel_values=pixels, labels=torch.arange(count) % 2, index=torch.arange(count)
    )


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_contract(backbone: str, head: str, num_classes: int) -> None:
    """Shapes, frozen features, gradients, independence of the batch, bf16 and the state dict."""

    def build(*, freeze: bool = False) -> ImageClassifier:
        torch.manual_seed(0)
        return ImageClassifier(
            BACKBONES[backbone], num_classes, freeze_backbone=freeze, head=HEADS[head]
        )  # type: ignore[arg-type]

    task, pictures = build().eval(), batch()
    features = task.network.features(pictures)
    assert features.values.shape == (4, task.network.features.width)
    logits = task.network(pictures)
    assert logits.shape == (4, 1 if num_classes == 2 else num_classes)
    probabilities = task(pictures)
    assert probabilities.shape == (4, num_classes)
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1] * 4, abs=1e-6)

    for i in range(4):
        alone = ImageBatch(**{key: value[i : i + 1] for key, value in pictures.items()})  # type: ignore[typeddict-item, index]
        torch.testing.assert_close(task.network(alone), logits[i : i + 1], atol=1e-4, rtol=1e-4)

    for model in (build(), build(freeze=True)):
        model.loss_and_predictions(pictures)[0].backward()
        for name, parameter in model.network.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.requires_grad or name.startswith("features")
        assert all(p.requires_grad for p in model.network.head.parameters())

    with torch.autocast("cpu", torch.bfloat16):
        loss, halved = task.loss_and_predictions(pictures)
    assert loss.dtype == halved.dtype == torch.float32
    torch.testing.assert_close(halved, probabilities, atol=0.06, rtol=0)

    again = ImageClassifier(task.backbone_config(), num_classes, head=HEADS[head])
    again.load_state_dict(task.state_dict())
    assert torch.equal(again.eval().network(pictures), logits)


@pytest.mark.parametrize(
    ("architecture", "size", "parameters", "width"),
    [
        ("vgg19", 32, 20_024_384, 512),
        ("deit_base_distilled_patch16_224", None, 85_800_192, 768),
        ("beit_base_patch16_224", None, 85_761_984, 768),
        ("densenet201", 32, 18_092_928, 1920),
    ],
)
def test_backbone_has_the_published_size(
    architecture: str, size: int | None, parameters: int, width: int
) -> None:
    encoder = image_encoder({"architecture": architecture}, None, size)
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert encoder.width == width


@pytest.mark.parametrize("backbone", ["deit", "beit", "densenet", "resnet"])
def test_features_equal_timms(backbone: str) -> None:
    torch.manual_seed(0)
    encoder = image_encoder(BACKBONES[backbone], None, None).eval()
    arguments = {
        key: value
        for key, value in BACKBONES[backbone].items()
        if key not in ("architecture", "size")
    }
    theirs = timm.create_model(
        BACKBONES[backbone]["architecture"], num_classes=0, **arguments
    ).eval()
    theirs.load_state_dict(encoder.model.state_dict())
    pixels = encoder.input(batch()["pixel_values"])
    expected = (
        theirs.forward_head(theirs.forward_features(pixels), pre_logits=True)
        if backbone != "deit"
        else theirs(pixels)
    )
    torch.testing.assert_close(encoder(batch()).values, expected)
    if backbone == "deit":  # the mean of the inputs of both heads
        tokens = theirs.forward_features(pixels)
        torch.testing.assert_close(expected, (tokens[:, 0] + tokens[:, 1]) / 2)


@pytest.mark.parametrize(
    ("backbone", "pixels", "layer"),
    [
        ("deit", 16 * 16, "blocks.1"),
        ("small_resnet", 20 * 20, None),
        ("vgg", 32 * 32, "features.4"),
    ],
)
def test_a_cpu_evaluates_a_few_images_at_a_time(
    backbone: str, pixels: int, layer: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoder, sizes, images = image_encoder(BACKBONES[backbone], None, None), [], batch(7)
    first = next(
        module for module in encoder.model.modules() if isinstance(module, torch.nn.Conv2d)
    )
    first.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    encoder.eval()
    ways = [encoder] if layer is None else [encoder, partial(encoder.forward_until, layer)]
    with torch.no_grad():
        expected = [way(images).values for way in ways]
        monkeypatch.setattr(
            "lightning_modules.networks.backbones.image_encoder._CHUNK_PIXELS", 3 * pixels + 1
        )
        for way, values in zip(ways, expected, strict=True):
            sizes.clear()
            torch.testing.assert_close(way(images).values, values)
            assert sizes == [3, 3, 1]
        encoder.train()(images)  # batch statistics need the whole batch
    assert sizes == [3, 3, 1, 7]


def test_vgg_features_are_its_last_convolution_flattened() -> None:
    encoder = image_encoder({"architecture": "vgg11"}, None, 32).eval()
    expected = encoder.model.features(encoder.input(batch()["pixel_values"])).flatten(1)
    assert expected.shape == (4, 512)
    torch.testing.assert_close(encoder(batch()).values, expected)


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (16, 24)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_input_equals_torchvisions_for_each_image(
    interpolation: str, size: tuple[int, int]
) -> None:
    """Values differ from torchvision's on a single image by at most 1 of 255.

    The same holds for Pillow, except for one value in 10,000.
    """
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = batch(3, 32)["pixel_values"]
    smooth = torch.nn.functional.avg_pool2d(pixels.float(), 5, 1, 2).to(
        torch.uint8
    )  # like a photograph
    mode = reference.InterpolationMode(interpolation)
    for stack in (pixels, smooth):
        ours = PixelInput(mean, std, size, interpolation)(stack)  # type: ignore[arg-type]
        assert ours.dtype == torch.float32
        for i, image in enumerate(stack):
            picture = reference.resize(
                Image.fromarray(image.permute(1, 2, 0).numpy()), list(size), interpolation=mode
            )
            for resized, most in (
                (reference.resize(image, list(size), interpolation=mode), 1),
                (reference.pil_to_tensor(picture), 2),
            ):
                theirs = reference.normalize(
                    reference.to_dtype(resized, torch.float32, scale=True), mean, std
                )
                steps = ((ours[i] - theirs) * torch.tensor(std).view(3, 1, 1) * 255).abs()
                assert steps.max() <= most + 1e-3
                assert (steps > 1 + 1e-3).float().mean() < 1e-4


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_for_other_devices_is_the_same_within_rounding(interpolation: str) -> None:
    """Runs the arithmetic for GPUs on the CPU; `resize` reads the device once."""
    smooth = torch.nn.functional.avg_pool2d(batch(3, 32)["pixel_values"].float(), 5, 1, 2).to(
        torch.uint8
    )
    on_cpu = resize(smooth, (224, 160), interpolation)  # type: ignore[arg-type]
    elsewhere = resize(PretendGPU(smooth), (224, 160), interpolation)  # type: ignore[arg-type]
    assert (on_cpu.int() - elsewhere.int()).abs().max() <= 1


class PretendGPU:
    """A tensor on the CPU that reports another device."""

    device = torch.device("meta")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.shape = tensor, tensor.shape

    def float(self) -> torch.Tensor:
        return self.tensor.float()


def test_input_follows_the_backbones_own_configuration() -> None:
    beit = image_encoder({"architecture": "beit_base_patch16_224", "depth": 1}, None, None)
    assert beit.config["mean"] == beit.config["std"] == [0.5, 0.5, 0.5]
    assert (beit.config["interpolation"], beit.config["size"]) == ("bicubic", [224, 224])
    vgg = image_encoder({"architecture": "vgg11"}, None, None)
    assert vgg.config["interpolation"] == "bilinear"
    assert vgg.config["mean"] == [0.485, 0.456, 0.406]
    assert beit(batch(1)).values.shape == (1, 768)


def test_mlp_head() -> None:
    head = MLPHead(768, 10, dropout=0.5)
    assert sum(p.numel() for p in head.parameters()) == 265_226
    assert [type(layer).__name__ for layer in head.hidden] == [
        "Linear",
        "ReLU",
        "Dropout",
        "Linear",
        "ReLU",
        "Dropout",
    ]
    assert {layer.p for layer in head.hidden if isinstance(layer, torch.nn.Dropout)} == {0.5}
    values = torch.randn(3, 768)
    first, second = head.hidden[0], head.hidden[3]
    expected = head.output(torch.relu(second(torch.relu(first(values)))))
    torch.testing.assert_close(head.eval()(Features(values)), expected)
    assert sum(p.numel() for p in LinearHead(768, 10).parameters()) == 7_690


@pytest.mark.parametrize("head", [BiGRUHead, partial(BiGRUHead, hidden=4)])
def test_a_head_that_reads_tokens_is_rejected(head: HeadFactory) -> None:
    with pytest.raises(HeadError, match=r"model\.head: this head reads tokens, .*head=mlp$"):
        ImageClassifier(BACKBONES["small_resnet"], 3, head=head)


# Weights.

SMALL = {"architecture": "vit_tiny_patch16_224", **VIT}


def saved(tmp_path: Path, num_classes: int = 7) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder as timm saves it: config.json and model.safetensors, with the classifier of its own task."""
    from timm.models import save_for_hf

    arguments = {key: value for key, value in SMALL.items() if key != "architecture"}
    torch.manual_seed(5)
    model = timm.create_model(str(SMALL["architecture"]), num_classes=num_classes, **arguments)
    model.pretrained_cfg["mean"] = (0.1, 0.2, 0.3)
    folder = tmp_path / "backbone"
    save_for_hf(model, folder, model_args=arguments, safe_serialization=True)
    return folder, {
        name: value for name, value in model.state_dict().items() if not name.startswith("head")
    }


def assert_loaded(encoder: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    state = encoder.model.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    assert encoder.training


def test_weights_from_a_folder_that_timm_saved(tmp_path: Path) -> None:
    folder, weights = saved(tmp_path)
    encoder = image_encoder(str(folder), None, None)
    assert_loaded(encoder, weights)
    assert encoder.config["mean"] == [0.1, 0.2, 0.3]
    assert encoder.config["size"] == [16, 16]
    again = image_encoder(encoder.config, None, None)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.eval()(batch()).values, encoder.eval()(batch()).values)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "folder"])
def test_weights_from_a_file(kind: str, tmp_path: Path) -> None:
    folder, weights = saved(tmp_path)
    path = folder if kind == "folder" else tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "pth":
        torch.save({"state_dict": weights, "epoch": 3}, path)
    assert_loaded(image_encoder(SMALL, str(path), None), weights)


def test_weights_of_our_own_networks_from_a_file(tmp_path: Path) -> None:
    first = image_encoder(BACKBONES["small_resnet"], None, None)
    save_file(
        {k: v.contiguous() for k, v in first.model.state_dict().items()},
        tmp_path / "own.safetensors",
    )
    second = image_encoder(BACKBONES["small_resnet"], str(tmp_path / "own.safetensors"), None)
    assert_loaded(second, first.model.state_dict())


def test_file_that_would_run_code_is_rejected(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(BackboneError, match=r"evil\.pth: no usable weights of this network"):
        image_encoder(SMALL, str(tmp_path / "evil.pth"), None)
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_rejected_and_not_random(tmp_path: Path) -> None:
    _, weights = saved(tmp_path)
    save_file(
        {name: value for name, value in weights.items() if "blocks.1." not in name},
        tmp_path / "part.safetensors",
    )
    with pytest.raises(
        BackboneError,
        match=r"part\.safetensors: no weights for blocks\.1\..*, so they would be random",
    ):
        image_encoder(SMALL, str(tmp_path / "part.safetensors"), None)


def test_weights_of_a_deeper_network_are_rejected(tmp_path: Path) -> None:
    _, weights = saved(tmp_path)
    save_file(weights, tmp_path / "deep.safetensors")
    with pytest.raises(
        BackboneError,
        match=r"vit_tiny_patch16_224 has no blocks\.2\..*, which the file contains; check that the weights",
    ):
        image_encoder({**SMALL, "depth": 2}, str(tmp_path / "deep.safetensors"), None)


def test_a_file_has_priority_over_a_source_in_the_config(tmp_path: Path) -> None:
    folder, weights = saved(tmp_path)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"] |= {"source": "hf-hub", "hf_hub_id": "no/such"}
    path.write_text(json.dumps(config))
    assert_loaded(image_encoder(str(folder), None, None), weights)


def test_half_precision_applies_to_weights_and_not_to_the_input() -> None:
    encoder = image_encoder(BACKBONES["small_resnet"], None, None).eval()
    whole = encoder(batch()).values
    halved = encoder.to(torch.bfloat16)
    assert halved.input(batch()["pixel_values"]).dtype == torch.float32
    assert halved(batch()).values.dtype == torch.bfloat16
    torch.testing.assert_close(halved(batch()).values.float(), whole, atol=0.1, rtol=0.05)


def test_tta_flip_averages_the_logits_of_both_views() -> None:
    task = ImageClassifier(BACKBONES["small_resnet"], 3, tta_flip=True)
    plain = ImageClassifier(BACKBONES["small_resnet"], 3)
    plain.load_state_dict(task.state_dict())
    flipped = ImageBatch(**{**batch(), "pixel_values": batch()["pixel_values"].flip(-1)})  # type: ignore[typeddict-item]
    expected = (plain.eval().network(batch()) + plain.network(flipped)) / 2
    torch.testing.assert_close(task.eval().logits(batch()), expected)
    torch.testing.assert_close(task(batch()), task(flipped))
    assert not torch.allclose(plain(batch()), plain(flipped))
    torch.manual_seed(0)
    training = task.train().logits(batch())
    assert torch.equal(training, plain.train().logits(batch()))


def test_first_filters_are_orthogonal_pairs() -> None:
    filters = opponent_filters().flatten(1)
    assert filters.shape == (24, 12)
    torch.testing.assert_close(filters[:12] @ filters[:12].T, torch.eye(12))
    assert torch.equal(filters[12:], -filters[:12])


@pytest.mark.parametrize(
    ("backbone", "weights", "message"),
    [
        (
            "vgg91",
            None,
            r"model.backbone=vgg91: no such folder \(.*\), and timm has no model of that name; did you mean vgg",
        ),
        (
            "vgg11.tv_in1kk",
            None,
            r"model.backbone=vgg11.tv_in1kk: timm has no weights 'tv_in1kk' for vgg11; it has vgg11.tv_in1k",
        ),
        (
            {**SMALL, "size": 32},
            None,
            r"model.backbone.size: received 32; \[height, width\] in pixels is needed",
        ),
        (
            {**SMALL, "mean": [0.5]},
            None,
            r"model.backbone.mean: received \[0.5\]; three numbers are needed",
        ),
        (
            {**SMALL, "interpolation": "lanczos"},
            None,
            r"model.backbone.interpolation: received 'lanczos'; choose bicubic",
        ),
        (
            "vgg11.tv_in1k",
            None,
            r"model.backbone=vgg11.tv_in1k: the hub returned no weights .* model.weights .* random weights",
        ),
        ({"depth": 3}, None, r"a mapping needs architecture"),
        (
            {"architecture": "vgg11", "colour": 3},
            None,
            r"model.backbone: vgg11 cannot be built from these values: .*colour",
        ),
        (
            {"architecture": "small_resnet", "colour": 3},
            None,
            r"model.backbone: small_resnet cannot be built from these values: .*colour",
        ),
        (
            {"architecture": "flat_pixels"},
            None,
            r"model.backbone: flat_pixels needs a size, for example",
        ),
        (SMALL, "missing.safetensors", r"model.weights=missing.safetensors: no such file"),
        (SMALL, "here.npz", r"model.weights=.*here.npz: cannot read '.npz' files"),
        (SMALL, "empty", r"model.weights=.*empty: no model.safetensors or pytorch_model.bin in it"),
        ("empty", None, r"empty: no usable config.json"),
    ],
)
def test_every_other_error_is_one_line(
    backbone: object,
    weights: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "here.npz", a=1)
    with pytest.raises(BackboneError, match=message) as caught:
        image_encoder(backbone, weights, None)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1
