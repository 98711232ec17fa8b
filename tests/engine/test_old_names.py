"""Names of version 0.1: removed ones are reported in one line, old run folders are translated."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from engine.old_names import (
    RemovedError,
    check_overrides,
    removal,
    translate_checkpoint,
    translate_config,
    translate_model,
    translate_overrides,
    translate_space,
)
from tests.conftest import SAMPLE, Train

HEADS, LOSSES, SCHEDULES = (
    "lightning_modules.networks.heads",
    "lightning_modules.losses",
    "lightning_modules.optim.schedules",
)


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


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("model.head=bigru", "head=bigru"),
        ("model.head=linear,bigru", "head=linear,bigru"),
        ("++model.head=bigru", "head=bigru"),
        ("model.optimizer=choice(adamw,sgd)", "optimizer=choice(adamw,sgd)"),
        ("model.schedule=plateau", "schedule=plateau"),
        ("model.hidden=64", "model.head.hidden=64"),
        ("model.hidden=[64,32]", "model.head.hidden=[64,32]"),
        ("+model.dropout=0.1", "model.head.dropout=0.1"),
        ("model.momentum=0.5", "model.optimizer.momentum=0.5"),
        ("++model.label_smoothing=0.1", "++model.loss.label_smoothing=0.1"),
        ("model.warmup=interval(0,0.5)", "model.schedule.warmup=interval(0,0.5)"),
        ("model.decay=0.5", "model.schedule.decay=0.5"),
        ("model.min_lr=1e-6", "model.schedule.min_lr=1e-6"),
        ("model.patience=0", "model.schedule.patience=0"),
        ("model.monitor=val/loss", "model.schedule.monitor=val/loss"),
        ("model.mode=min", "model.schedule.mode=min"),
    ],
)
def test_an_override_of_version_0_1_is_translated(old: str, now: str) -> None:
    assert translate_overrides(["seed=2", old, "-m"]) == ["seed=2", now, "-m"]
    assert translate_overrides([now]) == [now]


@pytest.mark.parametrize(
    "override",
    [
        "-m",
        "head=bigru",
        "model=segmenter",
        "model.lr=1",
        "model.head.hidden=8",
        "model.optimizer.momentum=0.5",
        "model.head={_target_: my.Head}",
        "+model.head={_target_: my.Head}",
        "model.head=null",
        "~model.head",
        "callbacks.unfreezing.schedule={0: null}",
        "data.hidden=1",
    ],
)
def test_other_overrides_are_not_translated(override: str) -> None:
    assert translate_overrides([override]) == [override]


def test_typed_overrides_of_version_0_1_are_applied_and_named(train: Train) -> None:
    old = ("model.head=linear", "model.dropout=0.5", "model.schedule=plateau", "model.patience=1")
    ended = train(
        *SAMPLE[:-1], *old, "model.optimizer=sgd", "model.momentum=0.5", "trainer.max_epochs=1"
    )
    assert ended.code == 0, ended.err
    assert "model.head=linear: since version 0.2 this is head=linear" in ended.err
    assert "model.dropout=0.5: since version 0.2 this is model.head.dropout=0.5" in ended.err
    model = OmegaConf.load(ended.folder / "config.yaml").model
    assert model.head == {"_target_": f"{HEADS}.LinearHead", "dropout": 0.5}
    assert (model.schedule._target_, model.schedule.patience) == (f"{SCHEDULES}.plateau", 1)
    assert (model.optimizer._target_, model.optimizer.momentum) == ("torch.optim.SGD", 0.5)


def test_a_search_space_of_version_0_1_is_translated() -> None:
    hidden: dict[str, Any] = {"type": "int", "low": 8, "high": 64}
    heads = {"type": "categorical", "choices": ["linear", "bigru"]}
    old = {
        "model.lr": {"type": "float", "low": 1, "high": 2},
        "model.head": heads,
        "model.hidden": {**hidden, "when": {"model.head": "bigru"}},
    }
    now = {
        "model.lr": {"type": "float", "low": 1, "high": 2},
        "head": heads,
        "model.head.hidden": {**hidden, "when": {"head": "bigru"}},
    }
    assert translate_space(old) == now
    assert translate_space(now) == now
    assert translate_space({"model.hidden": 3}) == {"model.head.hidden": 3}


def model_of(target: str, **values: Any) -> dict[str, Any]:
    """Return a model's config of version 0.1: its keys and those that all tasks had."""
    return {
        "_target_": target,
        "lr": 0.1,
        "optimizer": "adamw",
        "momentum": 0.9,
        "label_smoothing": 0.0,
        "schedule": "linear",
        "warmup": 0.1,
        "decay": 0.9,
        "min_lr": 1e-7,
        "patience": 2,
        "monitor": "val/acc",
        "mode": "max",
        **values,
    }


TEXT = "lightning_modules.text_classifier.TextClassifier"
ADAMW = {"_target_": "torch.optim.AdamW"}
LINEAR = {"_target_": f"{SCHEDULES}.linear", "warmup": 0.1}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (
            model_of(TEXT, head="bigru", hidden=8, dropout=0.2),
            {
                "head": {"_target_": f"{HEADS}.BiGRUHead", "hidden": 8, "dropout": 0.2},
                "loss": {"_target_": f"{LOSSES}.CrossEntropy", "label_smoothing": 0.0},
                "optimizer": ADAMW,
                "schedule": LINEAR,
            },
        ),
        (
            model_of(
                "lightning_modules.image_classifier.ImageClassifier",
                head="mlp",
                hidden=[8, 4],
                dropout=0.5,
                optimizer="sgd",
                momentum=0.5,
                label_smoothing=0.2,
                schedule="exponential",
                decay=0.5,
            ),
            {
                "head": {"_target_": f"{HEADS}.MLPHead", "hidden": [8, 4], "dropout": 0.5},
                "loss": {"_target_": f"{LOSSES}.CrossEntropy", "label_smoothing": 0.2},
                "optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.5, "nesterov": True},
                "schedule": {
                    "_target_": f"{SCHEDULES}.exponential",
                    "decay": 0.5,
                    "min_lr": 1e-7,
                },
            },
        ),
        (
            model_of(
                "lightning_modules.segmenter.Segmenter",
                optimizer="sgd",
                momentum=0.0,
                label_smoothing=0.1,
                schedule="plateau",
                patience=0,
                monitor="val/miou",
            ),
            {
                "loss": {"_target_": f"{LOSSES}.UpsampledCrossEntropy", "label_smoothing": 0.1},
                "optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.0, "nesterov": False},
                "schedule": {
                    "_target_": f"{SCHEDULES}.plateau",
                    "decay": 0.9,
                    "min_lr": 1e-7,
                    "patience": 0,
                    "monitor": "val/miou",
                    "mode": "max",
                },
            },
        ),
    ],
    ids=["text", "images", "masks"],
)
def test_the_words_of_a_model_become_nodes(before: dict[str, Any], now: dict[str, Any]) -> None:
    cfg = OmegaConf.create({"model": before})
    translate_model(cfg)
    assert cfg == {"model": {"_target_": before["_target_"], "lr": 0.1, **now}}
    again = cfg.copy()
    translate_model(again)
    assert again == cfg


def test_the_keys_of_an_own_task_are_left_alone() -> None:
    model = {"_target_": "my.Task", "hidden": 3, "mode": "fast", "head": "linear"}
    cfg = OmegaConf.create({"model": model})
    translate_model(cfg)
    assert cfg.model.hidden == 3
    assert cfg.model.mode == "fast"


def test_what_is_no_word_of_version_0_1_is_left_to_validation() -> None:
    for model in (
        {"_target_": TEXT, "head": "lstm", "optimizer": 3},
        {"_target_": TEXT, "head": None},
    ):
        cfg = OmegaConf.create({"model": model})
        translate_model(cfg)
        assert cfg == {"model": model}
    for other in ({}, {"model": None}, {"model": "text_classifier"}):
        cfg = OmegaConf.create(other)
        translate_model(cfg)
        assert cfg == other


def test_an_experiment_in_words_of_version_0_1_is_run(train: Train, tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [sample_images, _self_]\n"
        "data: {rows: {train: 40, val: 20, test: 20}}\n"
        "model:\n  backbone: {architecture: small_resnet, widths: [8, 8], depth: 1}\n"
        "  head: mlp\n  hidden: [8]\n  dropout: 0.5\n  optimizer: sgd\n  momentum: 0.0\n"
        "  schedule: constant\n  warmup: 0.0\n  patience: 7\n  label_smoothing: 0.1\n"
    )
    ended = train(
        f"hydra.searchpath=[file://{tmp_path / 'own'}]", "experiment=mine", "trainer.max_epochs=1"
    )
    assert ended.code == 0, ended.err
    model = OmegaConf.load(ended.folder / "config.yaml").model
    assert model.head == {"_target_": f"{HEADS}.MLPHead", "hidden": [8], "dropout": 0.5}
    assert model.optimizer == {"_target_": "torch.optim.SGD", "momentum": 0.0, "nesterov": False}
    assert model.schedule == {"_target_": f"{SCHEDULES}.constant", "warmup": 0.0}
    assert model.loss == {"_target_": f"{LOSSES}.CrossEntropy", "label_smoothing": 0.1}
    assert not {"hidden", "dropout", "momentum", "warmup", "patience", "label_smoothing"} & set(
        model
    )


def test_images_that_were_not_kept_are_checked_as_in_version_0_1() -> None:
    for data, expected in (
        ({"in_memory": False}, {"in_memory": False, "check": True}),
        ({"in_memory": False, "check": False}, {"in_memory": False, "check": False}),
        ({"in_memory": True}, {"in_memory": True}),
    ):
        cfg = OmegaConf.create({"data": data})
        translate_config(cfg)
        assert cfg.data == expected
