"""What is typed takes effect or is a fault, also over files that set a class themselves."""

from pathlib import Path

import pytest

from engine.old_names import translate_override
from run_folders.run_folder import RunFolder, RunFolderError
from tests.conftest import SAMPLE, Train

PLAN = ("plan=true", "data.rows={train: 96, val: 32, test: 40}")
MLP = "lightning_modules.networks.heads.MLPHead"


def write(folder: Path, name: str, text: str) -> None:
    file = folder / "configs" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    "head", ["head: mlp", f"head: {{_target_: {MLP}, hidden: [8]}}"], ids=["word", "node"]
)
def test_a_typed_choice_without_effect_is_a_fault(head: str, train: Train, tmp_path: Path) -> None:
    write(
        tmp_path,
        "experiment/mine",
        f"# @package _global_\ndefaults: [sample_images, _self_]\nmodel:\n  {head}\n",
    )
    for typed in ("head=linear", "model.head=linear"):
        ended = train("experiment=mine", typed, folder=tmp_path / typed.partition("=")[0])
        assert ended.code == 1
        assert "head=... has no effect, because configs/experiment/mine.yaml sets" in ended.error
    ended = train("experiment=mine", *PLAN[:1], folder=tmp_path / "alone")
    assert ended.code == 0, ended.err


def test_a_typo_in_the_file_of_an_option_is_a_fault(train: Train, tmp_path: Path) -> None:
    write(
        tmp_path,
        "head/mine",
        f"# @package model.head\n_target_: {MLP}\nhiden: [8]\n",
    )
    ended = train("experiment=sample_images", "head=mine")
    assert ended.code == 1
    fault = "model.head.hiden (configs/head/mine.yaml): unknown key of MLPHead; did you mean hidden"
    assert fault in ended.error


@pytest.mark.parametrize("part", ["head", "optimizer", "schedule", "loss"])
def test_a_part_that_is_null_is_a_fault(part: str, train: Train) -> None:
    ended = train(f"model.{part}=null")
    assert ended.code == 1
    assert f"model.{part} (the command line): received None; choose an option" in ended.error


def test_momentum_of_0_is_no_nesterov_momentum(train: Train) -> None:
    assert translate_override("model.momentum=0.0") == [
        "model.optimizer.momentum=0.0",
        "model.optimizer.nesterov=false",
    ]
    assert translate_override("model.momentum=0.05") == ["model.optimizer.momentum=0.05"]
    assert translate_override("+model.hidden=8") == ["model.head.hidden=8"]
    ended = train("optimizer=sgd", "model.momentum=0", *PLAN)
    assert ended.code == 0, ended.err


def test_a_key_of_a_class_that_its_file_does_not_list(train: Train) -> None:
    ended = train("model.optimizer.betas=[0.9,0.98]")
    assert " +model.optimizer.betas=... sets another argument of its class" in ended.error
    ended = train("+model.optimizer.betas=[0.9,0.98]", *PLAN)
    assert ended.code == 0, ended.err


def test_a_run_that_failed_before_training_can_start_again(train: Train) -> None:
    """Its folder has nothing to lose; that of a run with an epoch has."""
    assert train("model.lr=-1").code == 1
    ended = train(*SAMPLE, "trainer.max_epochs=1")
    assert ended.code == 0, ended.err
    with pytest.raises(RunFolderError, match="holds a run already"):
        RunFolder(ended.folder).begin(None)
