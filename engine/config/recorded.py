"""The config of a run that was run before."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from engine.old_names import translate_config


def read_config(path: Path, *, to_train: bool = False) -> DictConfig:
    """Read a run's config.yaml; of a run of version 0.1 under today's names, see `translate_config`."""
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)  # noqa: S101 - tells the type checker
    translate_config(cfg, to_train=to_train)
    return cfg
