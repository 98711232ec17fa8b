"""Write the config of a run, and read that of an earlier run."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from engine.config.precision import full_name
from engine.config.redaction import redacted
from engine.old_names import translate_config
from run_folders.errors import brief
from run_folders.files import write_text
from run_folders.run_folder import RunFolderError

# Format of config.yaml. Version 0.1 wrote no number.
FORMAT = 2


def write_config(path: Path, cfg: DictConfig) -> None:
    """Write a settled config with its format number and without secrets."""
    write_text(path, f"format: {FORMAT}\n{OmegaConf.to_yaml(redacted(cfg))}")


def read_config(path: Path, *, to_train: bool = False) -> DictConfig:
    """Read a run's config.yaml, and translate names of version 0.1 with `translate_config`.

    Interpolations stay as text, so that a run folder of someone else reads no environment variable.

    Args:
        path: The file.
        to_train: Whether the run is to be resumed, not only evaluated or used for prediction.

    Raises:
        RunFolderError: If the file is missing, damaged, or of a newer version of Thaw.
    """
    try:
        loaded = OmegaConf.load(path)
        plain: Any = OmegaConf.to_container(loaded, resolve=False)
    except Exception as error:  # whatever the operating system or the YAML parser raises
        msg = f"{path} cannot be read: {brief(error)}; restore it, or train again"
        raise RunFolderError(msg) from error
    if not isinstance(plain, dict) or not plain:
        msg = f"{path} has no keys; restore it, or train again"
        raise RunFolderError(msg)
    written = plain.pop("format", 1)
    if written not in range(1, FORMAT + 1):
        msg = f"{path} has the format {written!r}; this version of Thaw reads 1 to {FORMAT}"
        raise RunFolderError(msg)
    cfg: DictConfig = OmegaConf.create(_as_text(plain))
    if written == 1:
        translate_config(cfg, to_train=to_train)
    if OmegaConf.select(cfg, "trainer.precision") is not None:
        cfg.trainer.precision = full_name(cfg.trainer.precision)
    return cfg


def _as_text(value: Any) -> Any:  # noqa: ANN401 - any value of a config
    """Escape the interpolations in nested values."""
    if isinstance(value, dict):
        return {key: _as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_text(inner) for inner in value]
    if not isinstance(value, str):
        return value
    # OmegaConf reads two backslashes before `${` as one, and an odd one as the escape.
    return re.sub(r"(\\*)\$\{", lambda match: f"{match[1] * 2}\\${{", value)
