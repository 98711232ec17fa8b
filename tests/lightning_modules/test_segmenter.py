"""Segmentation networks: Hugging Face's logits, freezing, checkpointing, loss, invalid input."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    BeitImageProcessor,
    PreTrainedModel,
)

from datamodules.batches import SegmentationBatch
from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
from lightning_modules.losses.upsampled_cross_entropy import upsampled_cross_entropy
from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.segmentation import segmentation_network
from lightning_modules.networks.backbones.segmentation_network import SegmentationNetwork
from lightning_modules.segmenter import Segmenter

_VIT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 64}
BEIT = {
    "model_type": "beit",
    **_VIT,
    "num_hidden_layers": 6,
    "out_indices": [2, 3, 4, 5],
    "auxiliary_channels": 8,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "beit": {**BEIT, "use_relative_position_bias": True},
    "data2vec": {**BEIT, "model_type": "data2vec-vision", "out_indices": [2, 3, 4, 6]},
    "segformer": {
        "model_type": "segformer", "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": 16,
    },
    "dpt": {
        "model_type": "dpt", **_VIT, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8, "is_hybrid": False,
    },
}  # fmt: skip
CLASSES = 5


def batch(count: int = 2, side: int = 64) -> SegmentationBatch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (count, side, side), generator=generator, dtype=torch.uint8)
    labels[:, :5] = 255
    sizes = torch.full((count, 2), side)
    return SegmentationBatch(
        pixel_values=pixels, labels=labels, sizes=sizes, index=torch.arange(count)
    )


def reference(config: dict[str, Any], seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    rest = {key: value for key, value in config.items() if key != "model_type"}
    made = AutoModelForSemanticSegmentation.from_config(
        AutoConfig.for_model(config["model_type"], **rest, num_labels=CLASSES)
    )
    for parameter in made.parameters():  # some start as zeros, which would hide their effect
        parameter.data += 0.02 * torch.randn_like(parameter)
    return made.eval()


@pytest.fixture(params=NETWORKS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, PreTrainedModel, Path]:
    model = reference(NETWORKS[request.param])
    model.save_pretrained(tmp_path / "network")
    return request.param, model, tmp_path / "network"


def normalised(network: SegmentationNetwork, pixels: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (network.features.mean, network.features.std)
    )
    return (pixels / 255 - mean) / std


def test_a_saved_network_returns_the_logits_of_hugging_face(
    saved: tuple[str, PreTrainedModel, Path],
) -> None:
    name, model, folder = saved
    network = segmentation_network(str(folder), CLASSES).eval()
    auxiliary: list[Tensor] = []
    if getattr(model, "auxiliary_head", None) is not None:
        model.auxiliary_head.register_forward_hook(
            lambda module, inputs, output: auxiliary.append(output)
        )
    with torch.no_grad():
        ours = network(batch())
        theirs = model(pixel_values=normalised(network, batch()["pixel_values"])).logits
    torch.testing.assert_close(ours.logits, theirs, rtol=1e-4, atol=1e-5)
    assert (ours.auxiliary is None) == (name == "segformer")
    if ours.auxiliary is not None:
        torch.testing.assert_close(ours.auxiliary, auxiliary[0], rtol=1e-4, atol=1e-5)
    expected = [0.485, 0.456, 0.406] if name == "segformer" else [0.5, 0.5, 0.5]
    assert network.features.mean == expected


@pytest.mark.parametrize("name", ["beit", "segformer"])
def test_every_parameter_of_a_network_trains(name: str) -> None:
    """Unused parameters are removed.

    Otherwise a plan would count them, and DDP would wait for their gradients.
    """
    network = segmentation_network(NETWORKS[name], CLASSES)
    logits, auxiliary = network(batch())
    (logits.square().mean() + (0 if auxiliary is None else auxiliary.square().mean())).backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    if name == "beit":
        assert (
            len(network.features.model.layers) == 4
        )  # of 6: the head reads the states after layers 1, 2, 3 and 4


def test_a_network_is_rebuilt_from_its_plain_configuration(
    saved: tuple[str, PreTrainedModel, Path],
) -> None:
    task = Segmenter(str(saved[2]), CLASSES)
    config = json.loads(json.dumps(task.backbone_config()))
    again = Segmenter(config, CLASSES)
    again.load_state_dict(task.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(batch()), task.eval()(batch()))
        assert torch.equal(again.network(batch()).logits, task.network(batch()).logits)


def test_weights_for_other_numbers_of_classes_are_used_except_in_the_last_layers(
    saved: tuple[str, PreTrainedModel, Path], caplog: pytest.LogCaptureFixture
) -> None:
    network, own = (
        segmentation_network(str(saved[2]), 3).eval(),
        segmentation_network(str(saved[2]), CLASSES).eval(),
    )
    assert network(batch()).logits.shape[1] == 3
    theirs = own.state_dict()
    other = {
        name for name, value in network.state_dict().items() if value.shape != theirs[name].shape
    }
    assert other
    assert all(name.startswith("head.") for name in other)
    assert all(
        torch.equal(value, theirs[name])
        for name, value in network.state_dict().items()
        if name not in other
    )
    assert re.search(
        r"has no weights with 3 classes for \S+.*: these layers start from random weights",
        caplog.text,
    )


def test_an_encoder_without_a_head_gets_a_random_head(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = AutoConfig.for_model(
        "segformer", **{key: v for key, v in NETWORKS["segformer"].items() if key != "model_type"}
    )
    encoder = AutoModelForImageClassification.from_config(config)
    encoder.save_pretrained(tmp_path)
    network = segmentation_network(str(tmp_path), CLASSES)
    ours = network.features.model.state_dict()
    assert all(
        torch.equal(value, ours[name]) for name, value in encoder.segformer.state_dict().items()
    )
    assert "decode_head" in caplog.text


def test_the_input_is_normalised_as_the_folder_states(tmp_path: Path) -> None:
    reference(NETWORKS["beit"]).save_pretrained(tmp_path)
    BeitImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(
        tmp_path
    )
    network = segmentation_network(str(tmp_path), CLASSES)
    assert (network.features.mean, network.features.std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    stated = segmentation_network({**BEIT, "mean": [0, 0, 0], "std": [1, 1, 1]}, CLASSES)
    assert (stated.features.mean, stated.features.std) == ([0, 0, 0], [1, 1, 1])


@pytest.mark.parametrize("switch", ["checkpoint_encoder", "checkpoint_head"])
@pytest.mark.parametrize("name", ["beit", "segformer"])
def test_checkpointing_changes_neither_gradients_nor_statistics(name: str, switch: str) -> None:
    """Also with dropout.

    BatchNorm's statistics would change twice if the second forward pass counted.
    """
    more = {"drop_path_rate": 0.3, "hidden_dropout_prob": 0.1}
    torch.manual_seed(0)
    first = segmentation_network({**NETWORKS[name], **more}, CLASSES)
    second = segmentation_network({**NETWORKS[name], **more}, CLASSES, **{switch: True})
    second.load_state_dict(first.state_dict())
    for network in (first, second):
        torch.manual_seed(7)
        for _ in range(2):
            loss, _ = upsampled_cross_entropy(network(batch()).logits, batch()["labels"])
            loss.backward()
    for (key, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad), key  # type: ignore[arg-type]
    for (key, a), (_, b) in zip(first.named_buffers(), second.named_buffers(), strict=True):
        assert torch.equal(a, b), key
    assert any("running_mean" in key for key, _ in first.named_buffers())


def saved_bytes(network: SegmentationNetwork) -> int:
    """Number of bytes that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {p.untyped_storage().data_ptr() for p in [*network.parameters(), *network.buffers()]}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(batch(4))
    del output
    return sum(size for pointer, size in kept.items() if pointer not in own)


def test_checkpointing_saves_memory() -> None:
    deep = {**NETWORKS["beit"], "num_hidden_layers": 12, "out_indices": [3, 6, 9, 12]}
    plain = saved_bytes(segmentation_network(deep, CLASSES))
    encoder = saved_bytes(segmentation_network(deep, CLASSES, checkpoint_encoder=True))
    head = saved_bytes(segmentation_network(deep, CLASSES, checkpoint_head=True))
    assert encoder < 0.7 * plain
    assert head < 0.8 * plain


def test_a_frozen_backbone_and_one_that_unfreezes() -> None:
    task = Segmenter(NETWORKS["beit"], CLASSES, freeze_backbone=True)
    assert not any(p.requires_grad for p in task.network.features.parameters())
    assert all(p.requires_grad for p in task.network.head.parameters())
    assert not any(
        module.training
        for module in task.train().network.features.modules()
        if module is not task.network.features.input
    )
    gradual = Segmenter(NETWORKS["beit"], CLASSES)
    LayerUnfreezing(schedule={0: None, 1: "layers.3", 2: "layers.2"}, layer_decay=0.5).set_plan(
        gradual
    )
    plan = gradual.freezing
    assert plan.first_epoch("features.model.layers.3.mlp.fc1.weight") == 1
    assert plan.first_epoch("features.model.layers.2.mlp.fc1.weight") == 2
    assert plan.first_epoch("features.model.embeddings.cls_token") is None
    assert plan.first_epoch("head.model.decode_head.classifier.weight") == 0
    assert plan.group("features.model.layers.2.mlp.fc1.weight")[1] == 0.5


def test_the_auxiliary_head_counts_in_the_training_loss_and_not_in_metrics() -> None:
    task = Segmenter(NETWORKS["beit"], CLASSES, auxiliary_weight=0.4)
    labels = batch()["labels"]
    torch.manual_seed(0)
    totals = task.new_totals(keep_samples=False)
    loss = task.train().shared_step(batch(), totals)
    torch.manual_seed(0)
    logits, auxiliary = task.network(batch())
    assert auxiliary is not None
    main, aside = (upsampled_cross_entropy(values, labels)[0] for values in (logits, auxiliary))
    assert loss.item() == pytest.approx((main + 0.4 * aside).item())
    assert totals.result().metrics["loss"] == pytest.approx(main.item())
    with torch.no_grad():
        measured = task.eval().shared_step(batch(), task.new_totals(keep_samples=False))
        assert measured.item() == pytest.approx(
            upsampled_cross_entropy(task.network(batch()).logits, labels)[0].item()
        )


def test_each_mask_is_evaluated_at_its_own_size() -> None:
    task = Segmenter(NETWORKS["segformer"], CLASSES).eval()
    sizes = [(40, 72), (64, 33)]
    labels = torch.full((2, 64, 72), 255, dtype=torch.uint8)
    for i, (height, width) in enumerate(sizes):
        labels[i, :height, :width] = torch.randint(0, CLASSES, (height, width), dtype=torch.uint8)
    mixed = {**batch(), "labels": labels, "sizes": torch.tensor(sizes)}
    with torch.no_grad():
        totals = task.new_totals(keep_samples=False)
        loss = task.shared_step(mixed, totals)  # type: ignore[arg-type]
        predictions = task(mixed)
        logits = task.network(batch()).logits
        losses = []
        for i, (height, width) in enumerate(sizes):
            upsampled = torch.nn.functional.interpolate(
                logits[i : i + 1], size=(height, width), mode="bilinear"
            )
            assert torch.equal(predictions[i, :height, :width].long(), upsampled.argmax(dim=1)[0])
            assert bool((predictions[i, height:] == 255).all())
            losses.append(
                torch.nn.functional.cross_entropy(
                    upsampled, labels[i : i + 1, :height, :width].long(), reduction="sum"
                )
            )
    pixels = sum(height * width for height, width in sizes)
    assert loss.item() == pytest.approx((sum(losses) / pixels).item(), rel=1e-5)
    assert totals.result().pixels == pixels


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"hidden_size": 16}, "a mapping needs model_type"),
        ({"model_type": "beet"}, "transformers has no model type 'beet'"),
        (
            {**BEIT, "hiden_size": 16},
            "model.backbone.hiden_size: unknown key of a beit configuration; nearest: hidden_size",
        ),
        (
            {**BEIT, "out_indices": [3, 4, 5]},
            "model.backbone: beit cannot be built from these values: BeitForSemanticSegmentation requires",
        ),
        (
            {**BEIT, "out_indices": [3, 4, 5, 9]},
            "model.backbone: invalid beit configuration: out_indices must be valid",
        ),
        ({"model_type": "bert"}, "model.backbone: bert cannot be built from these values"),
        ({"model_type": "mobilevit"}, "mobilevit expects BGR channel order"),
        ({"model_type": "upernet"}, "upernet has no separate backbone module"),
        (
            {**BEIT, "mean": [0, 0]},
            "model.backbone.mean: received [0, 0]; three numbers are needed",
        ),
        ("nowhere/at-all", "no such folder"),
    ],
)
def test_an_invalid_network_is_reported(backbone: str | dict[str, Any], message: str) -> None:
    with pytest.raises(BackboneError) as caught:
        segmentation_network(backbone, CLASSES)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_cover_the_backbone_are_rejected(tmp_path: Path) -> None:
    reference({**BEIT, "num_hidden_layers": 5}).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "num_hidden_layers": 6, "stage_names": None})
    )
    with pytest.raises(
        BackboneError, match=r"no weights for beit\.layers\.5\..*, so they would be random"
    ):
        segmentation_network(str(tmp_path), CLASSES)
