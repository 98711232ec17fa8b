"""Check the configs of the working directory before Hydra reads them.

Hydra builds its callbacks, loggers and plugins itself, before Thaw sees the config. A file in
`./configs` may come from somebody else, so it sets none of these. The command line may.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.config.composing.paths import own_config_folders
from engine.config.errors import ConfigError
from run_folders.errors import brief
from run_folders.nested import nodes
from run_folders.own_packages import own_package_folders
from run_folders.untrusted import damaged, read_yaml, read_yaml_text

_PACKAGE = re.compile(r"^\s*#\s*@package\s+(\S+)", re.MULTILINE)
# Groups of Hydra that a file may choose an option of, and keys that it may set.
_GROUPS = re.compile(r"(override )?/?hydra/(launcher|sweeper)")
_KEYS = re.compile(r"hydra(\.(sweeper|launcher)(\..*)?)?")
_NAME = re.compile(r"[\w-]+")
# Options of a launcher that run commands or set the environment of its jobs.
_COMMANDS = {"setup", "additional_parameters", "srun_args", "ray", "python", "submitit_folder"}


def check_own_configs() -> None:
    """Check the files in the folder `configs` of the working directory.

    Raises:
        ConfigError: If a file sets what Hydra builds or runs itself.
        DamagedFileError: If a file is no readable YAML.
    """
    trusted = {(folder / "configs").resolve() for folder in own_package_folders()}
    for folder in own_config_folders():
        for path in sorted(folder.rglob("*.yaml")) if folder not in trusted else ():
            fault = next(_faults(path, folder), None)
            if fault is not None:
                msg = f"{path}: {fault}, which Hydra would build or run; set it on the command line"
                raise ConfigError(msg)


def _faults(path: Path, folder: Path) -> Iterator[str]:
    advice = "correct or remove it"
    text = read_yaml_text(path, advice)
    body = read_yaml(path, dict[Any, Any] | None, advice)
    try:
        OmegaConf.create(text)  # it refuses a key that occurs twice
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise damaged(path, brief(error), advice) from error
    if path.relative_to(folder).parts[0] == "hydra":
        yield "is an option of a group of Hydra"
    for package in _PACKAGE.findall(text):
        if package.partition(".")[0] == "hydra":
            yield f"has the package {package}"
    if body is None:
        return
    defaults = body.pop("defaults", None)
    for entry in defaults if isinstance(defaults, list) else ():
        yield from _faults_of_default(entry)
    for key, _ in nodes(body):
        leaf = key.rpartition(".")[2]
        inside = key.partition(".")[0] == "hydra"
        if inside and (not _KEYS.fullmatch(key) or leaf.startswith("_") or leaf in _COMMANDS):
            yield f"sets {key}"


def _faults_of_default(entry: object) -> Iterator[str]:
    """Check an entry of a defaults list."""
    pairs = entry.items() if isinstance(entry, dict) else [(str(entry), None)]
    for key, option in pairs:
        if "hydra" not in str(key):
            continue
        options = option if isinstance(option, list) else [option]
        plain = all(one is None or _NAME.fullmatch(str(one)) for one in options)
        if not (_GROUPS.fullmatch(str(key)) and plain):
            yield f"chooses {key}: {option}"
