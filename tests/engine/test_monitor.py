"""`monitor` and `mode` follow from the kind of task, unless they are set."""

import pytest

from engine.config.composing.composition import compose_config
from engine.sweeps.names import register_resolvers
from run_folders.own_packages import VARIABLE
from tests.conftest import SAMPLE, Train


@pytest.mark.parametrize(
    ("overrides", "monitor", "mode"),
    [
        ([], "val/acc", "max"),
        (["experiment=sample_scenes"], "val/miou", "max"),
        (["model=multilabel_image_classifier"], "val/map", "max"),
        (["monitor=val/loss"], "val/loss", "min"),
        (["monitor=val/ece"], "val/ece", "min"),
        (["monitor=val/loss", "mode=max"], "val/loss", "max"),
        (["schedule=plateau"], "val/acc", "max"),
    ],
)
def test_defaults(overrides: list[str], monitor: str, mode: str) -> None:
    register_resolvers()
    cfg = compose_config(["name=x", *overrides])
    assert (cfg.monitor, cfg.mode) == (monitor, mode)
    if "schedule=plateau" in overrides:
        assert (cfg.model.schedule.monitor, cfg.model.schedule.mode) == (monitor, mode)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("regression", "'regression' is none of classification"), ("", "kind of task '' is none of")],
)
def test_a_task_of_an_unknown_kind_is_named_before_training(
    kind: str, message: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_modules.text_classifier import TextClassifier

    monkeypatch.setenv(VARIABLE, "tests")
    monkeypatch.setattr(TextClassifier, "kind", kind)
    ended = train(*SAMPLE)
    assert ended.code == 1
    assert message in ended.error
    assert "nothing was run" in ended.error
