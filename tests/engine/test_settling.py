"""`settle` makes local paths absolute, and leaves names as they are."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from engine.config.settling import make_paths_absolute


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net").mkdir()
    monkeypatch.chdir(tmp_path)
    cfg = OmegaConf.create(
        {
            "ckpt_path": "a/best.ckpt",
            "model": {"backbone": "net", "weights": "net/x.safetensors"},
            "data": {"tokenizer": "${model.backbone}"},
        }
    )
    make_paths_absolute(cfg)
    assert cfg.model.backbone == cfg.data.tokenizer == str(tmp_path / "net")
    assert cfg.model.weights == str(tmp_path / "net" / "x.safetensors")
    assert cfg.ckpt_path == str(tmp_path / "a" / "best.ckpt")


def test_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resnet50").write_text("a file of the same name as a network")
    monkeypatch.chdir(tmp_path)
    values = {"ckpt_path": "last", "model": {"backbone": "resnet50", "weights": None}}
    cfg = OmegaConf.create({**values, "data": {}})
    make_paths_absolute(cfg)
    assert cfg == OmegaConf.create({**values, "data": {}})
