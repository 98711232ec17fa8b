"""Every experiment, at reduced size, runs through the real entry point to its report.

Backbones are saved on disk or have random weights.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from transformers import BeitConfig, BeitForSemanticSegmentation

from engine.config.composing.composition import compose_config
from run_folders.run_folder import RunFolder
from tests.conftest import ROOT, Ended, Train
from tests.images import cifar_like
from tests.masks import segmentation_folder

pytestmark = pytest.mark.drawn

EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml"))
PAPER = {
    "bert_feature",
    "bert_finetune",
    "bert_bigru_feature",
    "bert_bigru_finetune",
    "ctbert_bigru_feature",
    "ctbert_bigru_finetune",
}
MINILM = {"minilm_feature", "minilm_finetune", "minilm_bigru_feature", "minilm_bigru_finetune"}
VIT = "depth: 12, embed_dim: 24, num_heads: 2, patch_size: 8, img_size: 32"
# Experiment -> a smaller backbone with layers of the same names.
IMAGES = {
    "cifar10_mlp": "{architecture: flat_pixels, size: [32, 32]}",
    "cifar10_vgg19": "{architecture: vgg19, mlp_ratio: 0.01}",
    "cifar10_densenet201": "{architecture: densenet121, growth_rate: 8, block_config: [2, 2, 2, 2]}",
    "cifar10_deit": f"{{architecture: deit_base_distilled_patch16_224, {VIT}}}",
    "cifar10_beit_head": f"{{architecture: beit_base_patch16_224, {VIT}}}",
    "cifar10_beit_finetune": f"{{architecture: beit_base_patch16_224, {VIT}}}",
    "cifar10_resnet_scratch": "{architecture: small_resnet, widths: [8, 8, 8], depth: 1}",
    "cifar10_deit_tome": f"{{architecture: deit_tiny_distilled_patch16_224, {VIT}}}",
    "cifar10_token_learner": "{image: 24, dim: 16, heads: 2}",
    "cifar10_fdvit": "{patch: 8, stride: 4, sizes: [7, 5], dims: [8, 12], heads: [2, 2], depth: [1, 1]}",
    "sample_images": "{architecture: small_resnet, widths: [8, 8], depth: 1}",
}
TINY_BEIT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "out_indices": [1, 2, 3, 4], "auxiliary_channels": 8,
}  # fmt: skip
SCENES = ("beit_scene_parse", "beit_scene_parse_pretrained", "sample_scenes")


def test_every_experiment_is_covered() -> None:
    assert set(EXPERIMENTS) == PAPER | MINILM | set(IMAGES) | set(SCENES)


def finished(ended: Ended, samples: int) -> RunFolder:
    """Check what is true of every finished experiment; returns its run folder."""
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    assert folder.read_json("status.json")["state"] == "finished"
    metrics = folder.read_json("metrics.json")
    assert metrics["test"]["n"] == samples
    assert metrics["best"]["epoch"] == 0
    predictions = pd.read_parquet(folder.predictions)
    assert predictions["index"].tolist() == list(range(samples))
    accuracy = (predictions["label"] == predictions["prediction"]).mean()
    assert metrics["test"]["acc"] == pytest.approx(accuracy)
    assert "Misclassified" in folder.report.read_text(encoding="utf-8")
    assert f"report: {folder.report}" in ended.out
    return folder


@pytest.mark.parametrize("name", sorted(PAPER | MINILM))
def test_text_experiment_runs_to_its_report(
    name: str, train: Train, tiny_backbone: Path, covid_dir: Path
) -> None:
    ended = train(
        f"experiment={name}", f"model.backbone={tiny_backbone}", f"paths.data_dir={covid_dir}",
        "trainer.max_epochs=1", "data.batch_size=16", *(["model.head.hidden=8"] if "bigru" in name else []),
    )  # fmt: skip
    folder = finished(ended, 27)
    frozen = name.endswith("_feature")
    parameters = folder.read_json("metrics.json")["parameters"]
    assert (parameters["trainable"] < parameters["total"]) == frozen
    assert (folder.read_history()[0]["lr/features"] == "") == frozen


@pytest.mark.parametrize("name", IMAGES)
def test_image_experiment_runs_to_its_report(name: str, train: Train, tmp_path: Path) -> None:
    rows = (
        ["data.rows={train: 60, val: 20, test: 30}"]
        if name == "sample_images"
        else [f"paths.data_dir={cifar_like(tmp_path, 60, 30)}"]
    )
    ended = train(
        f"experiment={name}", f"model.backbone={IMAGES[name]}", "trainer.max_epochs=1", *rows
    )
    folder = finished(ended, 30)
    parameters = folder.read_json("metrics.json")["parameters"]
    assert (parameters["trainable"] < parameters["total"]) == (
        name in ("cifar10_vgg19", "cifar10_densenet201", "cifar10_deit") or name.endswith("head")
    )
    assert "Test samples of each class" in folder.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SCENES)
def test_segmentation_experiment_runs_to_its_report(
    name: str, train: Train, tmp_path: Path
) -> None:
    if name == "sample_scenes":
        overrides = ["data.rows={train: 32, val: 8, test: 6}"]
    else:
        splits = (
            {"validation": 6} if name.endswith("pretrained") else {"training": 40, "validation": 6}
        )
        segmentation_folder(tmp_path / "scene_parse_150", splits, shift=1)
        torch.manual_seed(0)
        config = BeitConfig(**TINY_BEIT, num_labels=150)
        BeitForSemanticSegmentation(config).save_pretrained(tmp_path / "network")
        overrides = [
            f"paths.data_dir={tmp_path}",
            "data.size=32",
            "data.num_workers=0",
            f"model.backbone={tmp_path / 'network'}",
        ]
    trains = not name.endswith("pretrained")
    ended = train(f"experiment={name}", "trainer.max_epochs=1", *overrides)
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    assert folder.read_json("status.json")["state"] == "finished"
    metrics = folder.read_json("metrics.json")
    assert (metrics["test"]["n"], len(metrics["test"]["classes"])) == (
        6,
        5 if name == "sample_scenes" else 150,
    )
    confusion = np.asarray(metrics["test"]["confusion_matrix"])
    assert (
        confusion.sum()
        == metrics["test"]["pixels"]
        == 6 * (64 if name == "sample_scenes" else 32) ** 2
    )
    assert metrics["test"]["pixel_acc"] == pytest.approx(confusion.trace() / confusion.sum())
    assert bool(metrics["best"]) == trains
    assert len(folder.read_history()) == int(trains)
    assert folder.best_checkpoint.exists()
    predictions = pd.read_parquet(folder.predictions)
    assert predictions["index"].tolist() == list(range(6))
    page = folder.report.read_text(encoding="utf-8")
    assert "Most frequent confusions" in page
    assert ("nothing was trained" in page) != trains
    assert f"report: {folder.report}" in ended.out


def composed(name: str) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(compose_config([f"experiment={name}"]), resolve=False)
    return values


def test_settings_of_the_segmentation_reference() -> None:
    values = composed("beit_scene_parse")
    model, data = values["model"], values["data"]
    assert model["backbone"] == "microsoft/beit-base-finetuned-ade-640-640"
    assert (model["lr"], model["backbone_lr"]) == (6e-5, 6e-5)
    assert model["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert model["schedule"] == {
        "_target_": "lightning_modules.optim.schedules.constant",
        "warmup": 0.0,
    }
    assert (model["auxiliary_weight"], data["size"], values["trainer"]["max_epochs"]) == (
        0.4,
        640,
        20,
    )
    assert data["num_classes"] == 150
    pretrained = composed("beit_scene_parse_pretrained")
    assert (pretrained["train"], pretrained["test"]) == (False, True)
    assert {k: v for k, v in pretrained.items() if k != "train"} == {
        k: v for k, v in values.items() if k != "train"
    }


def test_settings_of_the_reference() -> None:
    """The composed configs have the published values."""
    vgg, deit, beit, mlp = (
        composed(f"cifar10_{name}") for name in ("vgg19", "deit", "beit_head", "mlp")
    )
    assert (vgg["model"]["lr"], vgg["model"]["backbone_lr"], vgg["model"]["weight_decay"]) == (
        1e-4,
        1e-4,
        0.0,
    )
    assert vgg["model"]["schedule"] == {
        "_target_": "lightning_modules.optim.schedules.exponential",
        "decay": 0.9,
        "min_lr": 1e-7,
    }
    assert (
        vgg["data"]["batch_size"],
        vgg["trainer"]["max_epochs"],
        vgg["model"]["image_size"],
    ) == (64, 50, 32)
    assert vgg["callbacks"]["early_stopping"]["patience"] == 5
    assert (
        composed("cifar10_densenet201")["callbacks"]["unfreezing"]["start_layer"]
        == "features.denseblock4"
    )
    augmentation = {"crop_padding": 0, "flip": True, "rotation": 15.0, "rand_augment": None}
    assert deit["data"]["augmentation"] == augmentation
    assert deit["model"]["schedule"] == {
        "_target_": "lightning_modules.optim.schedules.constant",
        "warmup": 0.0,
    }
    assert (
        deit["model"]["lr"],
        deit["trainer"]["max_epochs"],
        deit["data"]["batch_size"],
    ) == (1e-4, 10, 64)
    assert deit["model"]["head"] == {
        "_target_": "lightning_modules.networks.heads.MLPHead",
        "hidden": [256, 256],
        "dropout": 0.5,
    }
    assert (beit["model"]["lr"], beit["model"]["weight_decay"], beit["data"]["batch_size"]) == (
        2e-5,
        0.01,
        10,
    )
    assert (
        beit["data"]["train_rows"],
        beit["data"]["val_fraction"],
        beit["trainer"]["max_epochs"],
    ) == (5000, 0.1, 10)
    assert (
        mlp["data"]["batch_size"],
        mlp["trainer"]["max_epochs"],
        mlp["model"]["weight_decay"],
    ) == (4, 10, 0.0)
