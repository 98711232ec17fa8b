"""Compose a config with Hydra."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from engine.config.composing.paths import CONFIGS

_INTERPOLATION = re.compile(r"(\\*)\$\{")


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the config that `train.py` runs with the same overrides, without the `hydra` node."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", list(overrides))


@contextmanager
def hydra_app() -> Iterator[Any]:
    """Yield Hydra's object that composes and runs a job, without a command line.

    Another application of Hydra in the same process gets its own state back.
    """
    outer, job = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), job_name="train", version_base="1.3"):
            yield GlobalHydra.instance().hydra
    finally:
        HydraConfig.instance().cfg = job
        GlobalHydra.instance().hydra = outer


def typed_overrides() -> list[str]:
    """Return the overrides as typed on the command line, with `${...}` unresolved."""
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(override) for override in overrides] if isinstance(overrides, list) else []


def escaped(text: str) -> str:
    """Return a text that OmegaConf reads as it is, also with `${` in it."""
    # Two backslashes before `${` are read as one, and an odd one as the escape.
    return _INTERPOLATION.sub(lambda match: match[1] * 2 + r"\${", text)


def escaped_values(value: Any) -> Any:  # noqa: ANN401 - any value of a config
    """Return nested values that OmegaConf reads as they are, also with `${` in them."""
    if isinstance(value, dict):
        return {key: escaped_values(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [escaped_values(inner) for inner in value]
    return escaped(value) if isinstance(value, str) else value
