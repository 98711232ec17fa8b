"""Names of version 0.1: removed ones are reported in one line, old run folders are translated."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from engine.old_names import (
    RemovedError,
    check_overrides,
    removal,
    translate_checkpoint,
    translate_config,
)
from tests.conftest import SAMPLE, Train


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("experiment=cifar10_speedrun", "experiment=cifar10_resnet_scratch"),
        ("experiment=sample_images,cifar10_speedrun", "experiment: received 'cifar10_speedrun'"),
        ("callbacks=first_layer", "leave it out"),
        ("logger=csv", "history.csv"),
        ("logger=[wandb,csv]", "history.csv"),
        ("logger=trackio", "logger=wandb, tensorboard or mlflow"),
        ("model.optimizer=muon", "adamw or sgd"),
        ("model.optimizer=choice(adamw,muon)", "adamw or sgd"),
        ("model.bias_lr=0.1", "model.backbone_lr"),
        ("+model.bias_lr=null", "model.backbone_lr"),
        ("model.shift_test=1", "model.tta_flip"),
        ("data.augmentation.flip=alternating", "data.augmentation.flip=true"),
        ("data.augmentation.small_crops={side: 24, epochs: 2}", "data.augmentation.crop_padding"),
    ],
)
def test_a_removed_override_names_its_replacement(
    override: str, expected: str, train: Train
) -> None:
    ended = train(override)
    assert ended.code == 1
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert "removed in version 0.2" in ended.err
    assert expected in ended.err


@pytest.mark.parametrize(
    ("override", "new_key"),
    [
        ("logger.mlflow.experiment=mine", "logger.mlflow.experiment_name"),
        ("model.mirror_test=true", "model.tta_flip"),
    ],
)
def test_a_renamed_key_names_the_new_key(override: str, new_key: str, train: Train) -> None:
    ended = train("logger=mlflow", override)
    key = override.partition("=")[0]
    assert ended.error == f"error: {key}: was renamed in version 0.2; use {new_key}"


def test_a_removed_key_in_a_file_is_among_the_faults(train: Train) -> None:
    """An override adds the key here, because no config file of Thaw has it."""
    ended = train(*SAMPLE, "+model={bias_lr: 1.0}", "model.lr=-1")
    assert ended.code == 1
    assert (
        "model.bias_lr (the command line): was removed in version 0.2; biases and norms train with model.backbone_lr"
        in ended.err
    )
    assert "model.lr" in ended.err
    assert "unknown key" not in ended.err
    old = train("experiment=sample_images", "model.backbone.architecture=whitened_net")
    assert "model.backbone.architecture" in old.error
    assert "small_resnet" in old.error


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            "defaults: [{override /logger: csv}]",
            "logger: received 'csv', which was removed in version 0.2; history.csv",
        ),
        (
            "data: {_target_: datamodules.cifar10.CIFAR10DataModule}",
            "data._target_ (own/experiment/mine.yaml): received 'datamodules.cifar10.CIFAR10DataModule', "
            "which was removed in version 0.2; use datamodules.image.ImageDataModule",
        ),
        (
            "callbacks: {first: {_target_: lightning_modules.callbacks.first_layer.FirstLayerFromData}}",
            "FirstLayerFromData', which was removed in version 0.2; leave it out",
        ),
    ],
)
def test_a_removed_option_or_class_in_a_file_names_its_replacement(
    lines: str, expected: str, train: Train, tmp_path: Path
) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{lines}\n")
    ended = train(f"hydra.searchpath=[file://{tmp_path / 'own'}]", "experiment=mine")
    assert ended.code == 1
    assert expected in ended.error


def test_current_overrides_pass() -> None:
    check_overrides(
        [
            "-m",
            "experiment=sample_images",
            "data.augmentation.flip=true",
            "model.optimizer=sgd,adamw",
            "~callbacks",
            "seed=1",
        ]
    )


def test_an_old_config_is_translated_but_not_trained_further() -> None:
    cfg = OmegaConf.create(
        {
            "data": {
                "_target_": "datamodules.cifar10.CIFAR10DataModule",
                "augmentation": {"small_crops": None, "flip": "alternating"},
            },
            "model": {
                "bias_lr": 3.0,
                "shift_test": 0,
                "optimizer": "muon",
                "lr": 1.0,
                "mirror_test": True,
            },
        }
    )
    with pytest.raises(RemovedError, match="not trained further"):
        translate_config(cfg.copy(), to_train=True)
    translate_config(cfg)
    assert cfg == {
        "data": {"_target_": "datamodules.image.ImageDataModule", "augmentation": {"flip": True}},
        "model": {"lr": 1.0, "tta_flip": True},
    }


@pytest.mark.parametrize(
    "model", [{"shift_test": 1}, {"backbone": {"architecture": "whitened_net"}}]
)
def test_a_removed_network_is_rejected(model: dict[str, object]) -> None:
    with pytest.raises(RemovedError, match="only its report can be written"):
        translate_config(OmegaConf.create({"data": {}, "model": model}))


def test_a_datamodule_state_is_renamed_to_the_current_class() -> None:
    state = {"class_list": 1}
    assert translate_checkpoint({"CIFAR10DataModule": state, "epoch": 2}) == {
        "ImageDataModule": state,
        "epoch": 2,
    }


def test_a_target_that_is_not_a_string_is_left_to_validation() -> None:
    assert removal("callbacks.own._target_", ["a"]) is None
