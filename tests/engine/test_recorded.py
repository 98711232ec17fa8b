"""The config of an earlier run: its format, and files that cannot be read."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from engine.config.errors import ConfigError
from engine.config.recorded import FORMAT, read_config, read_trained_config, write_config
from engine.old_names import RemovedError
from run_folders.own_packages import VARIABLE
from run_folders.run_folder import RunFolderError
from run_folders.untrusted import DamagedFileError


def test_a_config_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    cfg = OmegaConf.create({"seed": 1, "model": {"head": {"hidden": 8}}})
    write_config(path, cfg)
    assert path.read_text().startswith(f"format: {FORMAT}\n")
    assert read_config(path) == cfg


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("format: 99\nseed: 1\n", "has the format 99; this version of Thaw reads 1 to 2"),
        ("format: [1]\nseed: 1\n", "has the format"),
        ("format: 0\nseed: 1\n", "has the format 0"),
        ("format: null\nseed: 1\n", "has the format None"),
        ("a: [1\n", "is damaged"),
        ("a: ${\n", "is damaged"),
        ("", "has no keys"),
        ("- 1\n", "has no keys"),
        (None, "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises((RunFolderError, DamagedFileError), match=message):
        read_config(path)


def test_interpolations_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPHRASE", "hunter2")
    path = tmp_path / "config.yaml"
    cfg = OmegaConf.create({"model": {"backbone": "${oc.env:PASSPHRASE}"}, "paths": ["${seed}"]})
    write_config(path, OmegaConf.merge(cfg, {"seed": 3}))
    path.write_text(path.read_text() + "more:\n- a: ${oc.env:PASSPHRASE}\n")
    read = read_config(path)
    assert read.model.backbone == read.more[0].a == "${oc.env:PASSPHRASE}"
    assert read.paths == [3]  # resolved when it was written


OLD = "model: {_target_: lightning_modules.text_classifier.TextClassifier, head: bigru, hidden: 8}"


def test_words_are_translated_in_a_config_of_version_0_1_only(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for content in (OLD, f"format: 1\n{OLD}"):
        path.write_text(content)
        assert read_config(path).model.head == {
            "_target_": "lightning_modules.networks.heads.BiGRUHead",
            "hidden": 8,
            "dropout": 0.0,
        }
    path.write_text(f"format: 2\n{OLD}")
    assert read_config(path).model.head == "bigru"
    path.write_text("model: {optimizer: muon}")
    assert "optimizer" not in read_config(path).model
    with pytest.raises(RemovedError, match="not trained further"):
        read_config(path, to_train=True)


def test_a_loss_of_an_own_package_that_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "format: 2\n"
        "model: {_target_: lightning_modules.text_classifier.TextClassifier, num_classes: 2, "
        "backbone: x, loss: {_target_: my_package.losses.FocalLoss}}\n"
        "data: {_target_: datamodules.samples.SampleTextDataModule}\n"
        "trainer: {_target_: lightning.Trainer}\n"
    )
    where = "PYTHONPATH to the folder that contains it"
    with pytest.raises(ConfigError) as raised:
        read_trained_config(path)
    assert str(raised.value).endswith(f"or set THAW_COMPONENTS=my_package and {where}")
    monkeypatch.setenv(VARIABLE, "my_package")
    with pytest.raises(ConfigError) as raised:
        read_trained_config(path)
    assert str(raised.value) == (
        f"{path}: model.loss._target_: received 'my_package.losses.FocalLoss'; cannot import "
        f"my_package.losses: No module named 'my_package'; install it, or set {where}"
    )
