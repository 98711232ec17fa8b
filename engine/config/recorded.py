"""Read the config of an earlier run."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from engine.old_names import translate_config
from run_folders.errors import brief
from run_folders.run_folder import RunFolderError


def read_config(path: Path, *, to_train: bool = False) -> DictConfig:
    """Read a run's config.yaml, and translate names of version 0.1 with `translate_config`.

    Raises:
        RunFolderError: If the file is missing or damaged.
    """
    try:
        cfg = OmegaConf.load(path)
    except Exception as error:  # whatever the operating system or the YAML parser raises
        msg = f"{path} cannot be read: {brief(error)}; restore it, or train again"
        raise RunFolderError(msg) from error
    if not isinstance(cfg, DictConfig):
        msg = f"{path} has no keys; restore it, or train again"
        raise RunFolderError(msg)
    translate_config(cfg, to_train=to_train)
    return cfg
