"""Read the config of an earlier run."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from engine.old_names import translate_config


def read_config(path: Path, *, to_train: bool = False) -> DictConfig:
    """Read a run's config.yaml, and translate names of version 0.1 with `translate_config`."""
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)  # noqa: S101 - tells the type checker
    translate_config(cfg, to_train=to_train)
    return cfg
