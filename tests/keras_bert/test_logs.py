"""Loggers of keras_bert obey the environment and are closed."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keras_bert.run_folder import KerasRunFolder
from keras_bert.settings import FinetuneSettings
from keras_bert.training import logs


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {"project": "thaw", "name": "run", "mode": "offline"}),
        ({"WANDB_API_KEY": "k"}, {"project": "thaw", "name": "run"}),
        (
            {"WANDB_PROJECT": "mine", "WANDB_NAME": "first", "WANDB_MODE": "disabled"},
            {},
        ),
    ],
)
def test_variables_of_wandb_are_obeyed(
    variables: dict[str, str],
    expected: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import wandb

    for name in ("API_KEY", "PROJECT", "NAME", "MODE", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    received: dict[str, Any] = {}
    ended = []
    run = SimpleNamespace(log=lambda _: None, finish=lambda exit_code: ended.append(exit_code))
    monkeypatch.setattr(wandb, "init", lambda **settings: received.update(settings) or run)
    folder = KerasRunFolder(tmp_path / "run")
    monkeypatch.setattr(KerasRunFolder, "read_config", lambda _: {"lr": 1})
    settings = replace(FinetuneSettings(), wandb=True, tensorboard=False)
    with logs.open_loggers(settings, folder) as row_loggers:
        assert len(row_loggers) == 1
    assert received == {"config": {"lr": 1}, "dir": str(folder.path), **expected}
    assert ("no API key" in capsys.readouterr().out) == (expected.get("mode") == "offline")
    assert ended == [0]
