"""Flags of Hydra that name the place of configs: --config-dir and --config-name."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from omegaconf import DictConfig

from engine.config.composing.paths import CONFIGS
from engine.config.errors import ConfigError

CONFIG_NAME = "train"
_FLAGS = {"--config-dir": "-cd", "--config-name": "-cn", "--config-path": "-cp"}
_LONG = {short: flag for flag, short in _FLAGS.items()}
_REFUSED = {
    "--config-path": f"Thaw's configs are in {CONFIGS}; --config-dir=FOLDER adds a folder to them",
    "--experimental-rerun": "run the command again; hydra.run.dir=RUN ckpt_path=last resumes a run",
}


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the command line into these flags, as `--FLAG=VALUE`, and all other arguments.

    Hydra itself accepts them only before or after all overrides.

    Raises:
        ConfigError: If a flag cannot be used with Thaw.
    """
    flags, others = [], []
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        name = _LONG.get(name, name)
        if name in _REFUSED:
            msg = f"{argument}: Thaw does not support this flag; {_REFUSED[name]}"
            raise ConfigError(msg)
        if name not in _FLAGS:
            others.append(argument)
            continue
        value = value if equals else next(islice(left, 1), "")
        if not value:
            msg = f"{argument}: no value follows; write {name}=VALUE"
            raise ConfigError(msg)
        if name == "--config-dir":
            if not Path(value).is_dir():
                msg = f"{name}={value}: no such folder; name the folder of your configs"
                raise ConfigError(msg)
            value = str(Path(value).resolve())
        flags.append(f"{name}={value}")
    return flags, others


def flags_of(hydra: DictConfig) -> list[str]:
    """Return the flags that a job or a sweep was started with, from its node `hydra`.

    Launchers run jobs in processes that have other command lines.
    """
    folders = [
        source.path for source in hydra.runtime.config_sources if source.provider == "command-line"
    ]
    name = hydra.job.config_name
    return [
        *(f"--config-dir={folder}" for folder in folders),
        *([f"--config-name={name}"] if name != CONFIG_NAME else []),
    ]
