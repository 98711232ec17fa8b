"""Faults of a config: the real entry point reports all in one run, before it builds anything."""

from pathlib import Path

import pytest

from engine.config.errors import ConfigError
from engine.config.places import resolve_target
from tests.conftest import LINEAR_SAMPLE, SAMPLE, Train


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["+model.lr_hed=1"], ["model.lr_hed", "the command line", "model.lr"]),
        (["+trainer.max_epoch=1"], ["trainer.max_epoch", "max_epochs"]),
        (["model._target_=os.system"], ["model._target_", "os.system"]),
        (["model._target_=torch.os.system"], ["model._target_", "torch.os.system"]),
        (
            ["model._target_=torch.hub.load"],
            ["model._target_", "torch.hub.load", "only names of lightning_modules"],
        ),
        (
            ["model._target_=lightning_modules.text_classifier.TextClasifier"],
            ["no TextClasifier", "TextClassifier"],
        ),
        (
            ["model._target_=lightning_modules.nothing.Task"],
            ["cannot import lightning_modules.nothing"],
        ),
        (["head=lstm"], ["head=lstm", "has no 'lstm'", "bigru, linear, mlp"]),
        (["model.head=lstm"], ["head=lstm", "has no 'lstm'", "bigru, linear, mlp"]),
        (["loss=upsampled_cross_entropy"], ["model.loss", "is for segmentation"]),
        (
            ["optimizer=sgd", "model.optimizer.momentum=-1"],
            ["model.optimizer: SGD cannot be built", "momentum"],
        ),
        (
            ["model.optimizer._target_=torch.optim.LBFGS"],
            ["model.optimizer: LBFGS has no weight decay; set model.weight_decay=0"],
        ),
        (
            ["model.optimizer._target_=torch.optim.LBFGS", "model.weight_decay=0"],
            ["model.optimizer: LBFGS cannot be built"],
        ),
        (
            ["schedule=plateau", "trainer.check_val_every_n_epoch=2"],
            ["trainer.check_val_every_n_epoch", "schedule=plateau needs a validation"],
        ),
        (["schedule=plateau", "model.schedule.mode=up"], ["model.schedule.mode", "min, max"]),
        (["+data.wurst=1"], ["data.wurst", "unknown key of SampleTextDataModule"]),
        (["data.batch_size=many"], ["data.batch_size", "'many'", "int"]),
        (["model.lr=fast"], ["model.lr", "'fast'", "float"]),
        (["model.num_classes=3"], ["model.num_classes", "received 3", "2 classes"]),
        (["data.num_classes=3"], ["data.num_classes", "received 3", "fake, real"]),
        (["monitor=val/accuracy"], ["monitor", "val/accuracy", "val/acc"]),
        (["monitor=test/acc"], ["monitor", "chosen on validation"]),
        (["data.classes=[0,1]"], ["data.classes", "[0, 1]", "list[str]"]),
        (["data.classes=[real,real]"], ["names a class twice"]),
        (["data.batch_size=0"], ["data.batch_size", "received 0", "at least 1"]),
        (["data.max_length=1"], ["data.max_length", "at least 3"]),
        (["data.val_fraction=1.5"], ["data.val_fraction", "1.5"]),
        (["model.schedule.warmup=2"], ["model.schedule.warmup", "0 to 1"]),
        (["model.lr=-1"], ["model.lr", "at least 0"]),
        (["trainer.limit_test_batches=0"], ["trainer.limit_test_batches", "received 0"]),
        (
            ["logger=wandb", "+logger.wandb.projct=x"],
            ["logger.wandb.projct", "unknown key of WandbLogger", "project"],
        ),
        (["mode=largest"], ["mode", "'largest'", "min or max"]),
        (
            ["monitor=val/loss", "mode=max"],
            ["mode", "lower values of val/loss are better", "leave it out"],
        ),
        (["mode=min"], ["mode", "higher values of val/acc are better"]),
        (
            ["model.num_classes=1000000000000000000000000000000"],
            ["model.num_classes", "more than 64 bits"],
        ),
        (
            ["trainer.limit_train_batches=nan"],
            ["trainer.limit_train_batches", "received nan; give a number"],
        ),
        (["data.classes=[false,true]"], ["data.classes", "no, yes or 1 into quotes"]),
        (["data.classes=[real]", "data.num_classes=1"], ["names only 'real'; two or more classes"]),
        (
            ["trainer.max_epochs=2", "trainer.check_val_every_n_epoch=3"],
            ["trainer.check_val_every_n_epoch", "no epoch would be validated"],
        ),
        (["trainer.accumulate_grad_batches=0"], ["received 0; at least 1 is needed"]),
        (["ckpt_path=7"], ["ckpt_path: received 7", "the path of a checkpoint"]),
        (["model=null"], ["model=null: choose an option", "text_classifier"]),
        (["trainer.max_steps=2"], ["within the first epoch of 3 steps, so nothing is validated"]),
        (["+trainer.val_check_interval=99"], ["received 99, and an epoch has 3 batches"]),
        (["+trainer.fast_dev_run=true"], ["trainer.fast_dev_run", "debug=fast"]),
        (["cache.max_gb=1e308"], ["cache.max_gb", "up to 1e+09"]),
        (["seed=-1"], ["seed", "-1"]),
        (["trainer.precision=33"], ["trainer.precision"]),
        (["trainer.num_nodes=2"], ["trainer.num_nodes: received 2", "torchrun --nnodes=2", "srun"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs", "received 0"]),
        (["trainer.max_epochs=-1"], ["trainer.max_epochs", "received -1", "no trainer.max_steps"]),
        (["trainer.limit_val_batches=0"], ["trainer.limit_val_batches", "received 0"]),
        (["trainer.accelerator=abacus"], ["trainer", "abacus"]),
        (["+callbacks.stop.patience=3"], ["callbacks.stop", "no _target_"]),
        (["+logger.csv.save_dir=x"], ["logger.csv", "no _target_"]),
        (["+paths.data_dri=x"], ["paths.data_dri", "data_dir"]),
        (["+experiment.foo=1"], ["experiment", "unknown key"]),
        (["+debug.foo=1"], ["debug", "unknown key"]),
        (["logger=null", "experiment=5"], ["experiment=5", "has no '5'"]),
        (["+cache.folder=x"], ["cache.folder", "known: dir, features, max_gb"]),
        (["+nonsense=1"], ["nonsense (the command line): unknown key", "did you mean seed?"]),
        (["+max_epochs=1"], ["max_epochs (the command line): unknown key", "trainer.max_epochs"]),
        (["model.backbone.hidden_sise=16", "+model.backbone.hidden_sise=16"], ["hidden_sise"]),
        (["+model.backbone.hidden_sise=16"], ["model.backbone.hidden_sise", "hidden_size"]),
        (["model.backbone.model_type=brt"], ["model_type", "brt"]),
        (["model.lr=${nowhere}"], ["model.lr", "nowhere"]),
        (["model.pooling=???", "head=linear"], ["model.pooling", "???"]),
        (
            ["data.tokenizer=null", "model.backbone.vocab_size=300"],
            ["is needed; for a backbone of random weights set data.tokenizer='{vocab_size: 2000}'"],
        ),
        (
            ["data.tokenizer=null"],
            [
                "model.backbone.vocab_size",
                "cannot read ${data.tokenizer.vocab_size}: for a backbone of random weights set "
                "data.tokenizer='{vocab_size: 2000}'",
            ],
        ),
        (["data.tokenizer.vocab_size=10"], ["vocab_size=10", "too small"]),
        (["model.backbone.vocab_size=100"], ["data.tokenizer", "100"]),
        (["model.backbone.max_position_embeddings=8"], ["data.max_length", "8 tokens"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and "=" in value[0] else "",
)
def test_fault_is_named(overrides: list[str], expected: list[str], train: Train) -> None:
    ended = train(*(LINEAR_SAMPLE if "head=linear" in overrides else SAMPLE), *overrides)
    assert ended.code == 1
    assert ended.error.startswith("error: ")
    assert "Traceback" not in ended.err
    for part in expected:
        assert part in ended.error, ended.error
    assert not (ended.folder / "checkpoints").exists()


def test_all_faults_are_reported_together(train: Train) -> None:
    overrides = [
        "+model.lr_hed=1",
        "model.pooling=max",
        "mode=largest",
        "+trainer.max_epoch=1",
        "monitor=val/x",
        "model.num_classes=3",
    ]
    ended = train(*SAMPLE, *overrides)
    assert ended.code == 1
    assert "6 faults" in ended.error
    for part in (
        "model.lr_hed",
        "model.pooling",
        "mode",
        "trainer.max_epoch",
        "monitor",
        "model.num_classes",
    ):
        assert part in ended.error


def test_key_mistyped_in_a_file_names_the_file(train: Train, tmp_path: Path) -> None:
    """Hydra merges such a key silently: only the check of Thaw finds it."""
    experiments = tmp_path / "own" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "base.yaml").write_text(
        "# @package _global_\nmodel:\n  freze_backbone: true\n  lr: 1\n"
    )
    (experiments / "typo.yaml").write_text(
        "# @package _global_\ndefaults: [base]\nmodel:\n  lr: -1\ntrianer:\n  max_epochs: 1\n"
        "data:\n  cleaning:\n    htlm: true\n"
    )
    overrides = ["experiment=typo", "data.classes=[fake,real,both]", "+data.fold=1"]
    ended = train(f"hydra.searchpath=[file://{tmp_path / 'own'}]", *overrides)
    assert ended.code == 1
    for part in (
        "model.freze_backbone (own/experiment/base.yaml): unknown key",
        "freeze_backbone",
        "model.lr (own/experiment/typo.yaml): received -1",
        "trianer (own/experiment/typo.yaml): unknown key; did you mean trainer",
        "data.cleaning.htlm (own/experiment/typo.yaml): unknown key; did you mean html?",
        "data.num_classes (configs/data/sample_text.yaml): received 2",
        "data.fold (the command line): unknown key",
        "6 faults",
    ):
        assert part in ended.error, ended.error


def test_an_unknown_word_in_a_file_names_the_options(train: Train, tmp_path: Path) -> None:
    experiments = tmp_path / "own" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "mine.yaml").write_text(
        "# @package _global_\nmodel:\n  head: lstm\n  optimizer: 3\n"
    )
    ended = train(f"hydra.searchpath=[file://{tmp_path / 'own'}]", "experiment=mine")
    assert ended.code == 1
    for part in (
        "2 faults",
        "model.head (own/experiment/mine.yaml): received 'lstm'; choose an option of the group: "
        "bigru, linear, mlp",
        "model.optimizer (own/experiment/mine.yaml): received 3; choose an option of the group: "
        "adamw, sgd",
    ):
        assert part in ended.error, ended.error


def test_missing_argument_is_named(train: Train) -> None:
    ended = train(*SAMPLE, "~model.num_classes")
    assert ended.code == 1
    assert "model.num_classes" in ended.error
    assert "is needed by TextClassifier" in ended.error


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("torch.optim.AdamW", "model.optimizer"),
        ("lightning.pytorch.loggers.CSVLogger", "logger.csv"),
        ("lightning.Trainer", "trainer"),
    ],
)
def test_classes_of_the_allowed_packages_resolve(name: str, path: str) -> None:
    assert resolve_target(name, path).__name__ == name.rpartition(".")[2]


@pytest.mark.parametrize("path", ["model.optimizer", "logger.csv", "trainer"])
@pytest.mark.parametrize(
    "name", ["subprocess.Popen", "torch.serialization.pickle.Unpickler", "lightning", None, 3]
)
def test_nothing_else_resolves(name: object, path: str) -> None:
    with pytest.raises(ConfigError):
        resolve_target(name, path)
