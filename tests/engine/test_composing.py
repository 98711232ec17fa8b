"""Error messages where Hydra cannot compose a config; tests/test_train.py tests the whole command."""

import pytest
from hydra import MissingConfigException

from engine.command_line.explaining import OverrideError, explaining_errors
from engine.config.composing.composition import compose_config


def test_a_launcher_without_its_plugin_names_the_extra() -> None:
    missing = MissingConfigException("no joblib", "hydra/launcher/joblib", ["basic"])
    with (
        pytest.raises(
            OverrideError, match=r"hydra/launcher=joblib needs .* the extra `sweep` .*'\.\[sweep\]'"
        ),
        explaining_errors([]),
    ):
        raise missing


def test_an_unknown_launcher_names_the_available_ones() -> None:
    missing = MissingConfigException("no basik", "hydra/launcher/basik", ["basic"])
    with (
        pytest.raises(OverrideError, match="hydra/launcher has no 'basik'; did you mean basic"),
        explaining_errors([]),
    ):
        raise missing


def test_cfg_with_an_equals_sign_is_rejected_in_a_multirun() -> None:
    with pytest.raises(OverrideError, match="leave -m out"), explaining_errors(["--cfg=job", "-m"]):
        raise ValueError("Hydra's")


def test_other_errors_pass_unchanged() -> None:
    with (
        pytest.raises(ValueError, match=r"^something else$"),
        explaining_errors(["data=sample_text"]),
    ):
        raise ValueError("something else")


def test_suggested_keys_are_those_of_the_chosen_config() -> None:
    overrides = ["experiment=sample_images", "data.augmentation.flp=true"]
    with (
        pytest.raises(
            OverrideError,
            match=r"'data\.augmentation\.flp'.* did you mean data\.augmentation\.flip",
        ),
        explaining_errors(overrides),
    ):
        compose_config(overrides)
