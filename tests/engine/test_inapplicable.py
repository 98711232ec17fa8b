"""Keys that belong to a replaced class are dropped; keys that belong to no class are faults."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from engine.config.recorded import read_config
from tests.conftest import LINEAR_SAMPLE, SAMPLE, Ended, Train
from tests.engine.conftest import RunSweep

HEADS = "lightning_modules.networks.heads"
Files = Callable[..., str]


@pytest.fixture
def experiments(tmp_path: Path) -> Files:
    """Write experiments, and return the override that makes Hydra find them."""

    def write(**contents: str) -> str:
        folder = tmp_path / "own" / "experiment"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / f"{name}.yaml").write_text(f"# @package _global_\n{content}\n")
        return f"hydra.searchpath=[file://{tmp_path / 'own'}]"

    return write


def model_of(ended: Ended) -> dict[str, Any]:
    """Return the model's node in the config of a run."""
    assert ended.code == 0, ended.err
    values: Any = OmegaConf.to_container(read_config(ended.folder / "config.yaml"))
    return dict(values["model"])


def dropped(ended: Ended) -> list[str]:
    return [line for line in ended.err.splitlines() if "is dropped" in line]


def test_a_replaced_head_takes_its_keys_with_it(train: Train) -> None:
    ended = train(*LINEAR_SAMPLE, "trainer.max_epochs=1")
    assert model_of(ended)["head"] == {"_target_": f"{HEADS}.LinearHead", "dropout": 0.0}
    line = (
        "model.head.hidden=32 (configs/model/sample_text_classifier.yaml) is dropped: "
        f"{HEADS}.LinearHead has no such key"
    )
    assert dropped(ended) == [line]
    assert line in (ended.folder / "train.log").read_text()


@pytest.mark.parametrize(
    ("overrides", "head"),
    [
        ([f"model.head._target_={HEADS}.LinearHead"], {"_target_": f"{HEADS}.LinearHead"}),
        (
            [f"+model.head={{_target_: {HEADS}.LinearHead, dropout: 0.5}}"],
            {"_target_": f"{HEADS}.LinearHead", "dropout": 0.5},
        ),
        (["head=linear", "model.head.dropout=0.5"], {"dropout": 0.5}),
        (["model.head=linear", "model.dropout=0.5"], {"dropout": 0.5}),
    ],
    ids=str,
)
def test_every_way_to_choose_a_class_drops_keys_of_files(
    overrides: list[str], head: dict[str, Any], train: Train
) -> None:
    ended = train(*LINEAR_SAMPLE[:-1], "trainer.max_epochs=1", *overrides)
    assert model_of(ended)["head"] == {
        "_target_": f"{HEADS}.LinearHead",
        "dropout": 0.0,
        **head,
    }
    assert len(dropped(ended)) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["head=linear", "model.head.hidden=3"],
        ["model.head.hidden=3", "head=linear"],
        [f"model.head._target_={HEADS}.LinearHead", "model.head.hidden=3"],
        [f"+model.head={{_target_: {HEADS}.LinearHead, hidden: 3}}"],
        ["model.head=linear", "model.hidden=3"],
    ],
    ids=str,
)
def test_a_typed_key_that_the_chosen_class_does_not_have_is_a_fault(
    overrides: list[str], train: Train
) -> None:
    ended = train(*overrides)
    assert ended.code == 1
    assert "1 fault in the config" in ended.error
    assert (
        "model.head.hidden (the command line): unknown key of LinearHead; known: dropout"
        in ended.error
    )
    assert not dropped(ended)


def test_a_mistyped_key_of_a_file_stays_a_fault(
    train: Train, experiments: Files, tmp_path: Path
) -> None:
    """The file that has the key comes after the one that chose the class."""
    found = experiments(
        mine="model: {head: {hiden: 3}, schedule: {warm_up: 0.5}}",
        chooses="defaults: [override /head: linear]\nmodel: {head: {hidden: 3}}",
    )
    ended = train(found, "experiment=mine")
    assert ended.code == 1
    assert "2 faults in the config" in ended.error
    assert (
        "model.head.hiden (own/experiment/mine.yaml): unknown key of BiGRUHead; did you mean hidden"
        in ended.error
    )
    assert "model.schedule.warm_up (own/experiment/mine.yaml): unknown key of linear" in ended.error
    assert not dropped(ended)
    ended = train(found, "experiment=chooses", folder=tmp_path / "second")
    assert ended.code == 1
    assert (
        "model.head.hidden (own/experiment/chooses.yaml): unknown key of LinearHead" in ended.error
    )


def test_a_file_that_chooses_a_class_drops_keys_of_earlier_files(
    train: Train, experiments: Files
) -> None:
    found = experiments(
        first="model: {head: {hidden: 3}, schedule: {warmup: 0.5}}",
        second="defaults: [first, override /head: linear, override /schedule: exponential, _self_]",
    )
    ended = train(found, *LINEAR_SAMPLE[:-1], "experiment=second", "trainer.max_epochs=1")
    model = model_of(ended)
    assert model["head"] == {"_target_": f"{HEADS}.LinearHead", "dropout": 0.0}
    assert "warmup" not in model["schedule"]
    assert [line.partition(" is dropped")[0] for line in dropped(ended)] == [
        "model.head.hidden=3 (own/experiment/first.yaml)",
        "model.schedule.warmup=0.5 (own/experiment/first.yaml)",
    ]


def test_keys_that_the_class_has_are_kept(train: Train) -> None:
    ended = train(*SAMPLE, "head=bigru", "trainer.max_epochs=1")
    assert model_of(ended)["head"] == {
        "_target_": f"{HEADS}.BiGRUHead",
        "hidden": 8,
        "dropout": 0.0,
    }
    assert not dropped(ended)


def test_each_job_of_a_sweep_drops_the_keys_of_its_own_head(sweep: RunSweep) -> None:
    ended = sweep(*LINEAR_SAMPLE[:-1], "head=linear,bigru", "trainer.max_epochs=1")
    assert ended.code == 0, ended.err
    heads = [read_config(ended.folder / job / "config.yaml").model.head for job in ("0", "1")]
    assert [head.get("hidden") for head in heads] == [None, 32]
    assert len(dropped(ended)) == 1
