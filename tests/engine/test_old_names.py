"""What version 0.1 had and is gone is answered in one line; its run folders are read under today's names."""

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
    ("word", "named"),
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
def test_a_removed_word_says_what_to_use(word: str, named: str, train: Train) -> None:
    ended = train(word)
    assert ended.code == 1
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert "removed in version 0.2" in ended.err
    assert named in ended.err


@pytest.mark.parametrize(
    ("override", "now"),
    [
        ("logger.mlflow.experiment=mine", "logger.mlflow.experiment_name"),
        ("model.mirror_test=true", "model.tta_flip"),
    ],
)
def test_a_renamed_key_says_its_name(override: str, now: str, train: Train) -> None:
    ended = train("logger=mlflow", override)
    key = override.partition("=")[0]
    assert ended.error == f"error: {key}: was renamed in version 0.2; use {now}"


def test_a_removed_key_in_a_file_is_among_the_faults(train: Train) -> None:
    """Written by an override here, as no file of ours has it."""
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
    ("lines", "told"),
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
def test_an_option_or_a_class_that_is_gone_in_a_file_says_what_to_use(
    lines: str, told: str, train: Train, tmp_path: Path
) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{lines}\n")
    ended = train(f"hydra.searchpath=[file://{tmp_path / 'own'}]", "experiment=mine")
    assert ended.code == 1
    assert told in ended.error


def test_words_of_today_pass() -> None:
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


def test_an_old_config_loses_what_asked_for_nothing() -> None:
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
def test_an_old_network_that_is_gone_is_refused(model: dict[str, object]) -> None:
    with pytest.raises(RemovedError, match="only its report can be written"):
        translate_config(OmegaConf.create({"data": {}, "model": model}))


def test_a_state_is_found_under_the_class_of_today() -> None:
    state = {"class_list": 1}
    assert translate_checkpoint({"CIFAR10DataModule": state, "epoch": 2}) == {
        "ImageDataModule": state,
        "epoch": 2,
    }


def test_a_target_that_is_no_text_is_left_to_validation() -> None:
    assert removal("callbacks.own._target_", ["a"]) is None
