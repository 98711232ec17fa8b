"""Composition with Hydra.

Compose a config from overrides, find the file that sets a key, and explain mistyped overrides.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hydra import MissingConfigException, compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from engine.config.groups import groups
from engine.config.paths import CONFIGS
from engine.old_names import removal
from run_folders.errors import UserError, nearest
from run_folders.nested import nodes
from run_folders.own_packages import VARIABLE, own_packages

COMMAND_LINE = "the command line"
# Groups whose options are parts of the model.
PARTS = frozenset({"head", "loss", "optimizer", "schedule"})
_WORDS = {f"model.{part}" for part in PARTS}  # in version 0.1 they were words
# Launcher -> the extra that installs its plugin.
_EXTRAS = {
    "joblib": "sweep",
    "ray": "ray",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
}


class OverrideError(UserError, ValueError):
    """An override that names an unknown option or key."""


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the config that `train.py` runs with the same overrides, without the `hydra` node."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", list(overrides))


def typed_overrides() -> list[str]:
    """Return the overrides as typed on the command line, with `${...}` unresolved."""
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(override) for override in overrides] if isinstance(overrides, list) else []


class Source(NamedTuple):
    """Where a key of the config was set.

    Attributes:
        rank: Position in the order in which files are merged; the command line has the last.
        name: The file, or `COMMAND_LINE`.
    """

    rank: float
    name: str


TYPED = Source(math.inf, COMMAND_LINE)


def sources_of_keys() -> dict[str, Source]:
    """Return dotted key -> the last source that sets it, for the running job's config.

    The class of a part of the model has the name of the file that states it. It has the rank of the
    source that chooses this file: another file with `override /head: bigru`, or the command line
    with `head=bigru`.
    """
    job = HydraConfig.get()
    typed: Any = OmegaConf.to_container(job.overrides, resolve=False)
    overrides = [*typed["hydra"], *typed["task"]]
    folders = [
        Path(source.path) for source in job.runtime.config_sources if source.schema == "file"
    ]
    sources: dict[str, Source] = {}
    choices: dict[str, Source] = {}
    loader = GlobalHydra.instance().config_loader()
    defaults = loader.compute_defaults_list(job.job.config_name, overrides, RunMode.RUN).defaults
    for rank, default in enumerate(defaults):
        name = f"{default.config_path}.yaml"
        folder = next((folder for folder in folders if (folder / name).is_file()), None)
        if folder is not None:
            body: Any = OmegaConf.to_container(OmegaConf.load(folder / name), resolve=False)
            prefix = f"{default.package}." if default.package else ""
            source = Source(rank, f"{folder.name}/{name}")
            for key, value in nodes(body, prefix):
                sources[key] = source
                if key in _WORDS and isinstance(value, str):
                    sources[f"{key}._target_"] = source
            choices |= dict.fromkeys(_overridden_groups(body), source)
    parsed = OverridesParser.create().parse_overrides(typed["task"])
    chosen = [override.key_or_group for override in parsed]
    choices |= dict.fromkeys(PARTS.intersection(chosen), TYPED)
    for part in PARTS.intersection(choices):
        key = f"model.{part}._target_"
        stated = sources.get(key, choices[part])
        sources[key] = Source(max(choices[part].rank, stated.rank), stated.name)
    for override in parsed:
        if isinstance(value := override.value(), dict):
            chosen += [key for key, _ in nodes(value, f"{override.key_or_group}.")]
    chosen += [f"model.{part}" for part in PARTS.intersection(chosen)]
    return sources | dict.fromkeys(chosen, TYPED)


def choices_without_effect() -> Iterator[tuple[str, str]]:
    """Yield each part of the model whose typed option a file replaces, and the file."""
    typed = PARTS.intersection(override.partition("=")[0] for override in typed_overrides())
    sources = sources_of_keys() if typed else {}
    for part in typed:
        name = sources[f"model.{part}._target_"].name
        if name != COMMAND_LINE and Path(name).parent.name != part:
            yield part, name


def _overridden_groups(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the groups whose option a file overrides in its defaults list."""
    for entry in body.get("defaults") or ():
        for key in entry if isinstance(entry, dict) else ():
            if str(key).startswith("override "):
                yield str(key).removeprefix("override ").lstrip("/").partition("@")[0]


@contextmanager
def explaining_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Replace Hydra's errors about mistyped overrides by one line that suggests known names.

    Args:
        overrides: The command line without the program's name.

    Raises:
        OverrideError: Instead of Hydra's error.
    """
    try:
        yield
    except Exception as error:
        message = _message(error, overrides)
        if message is None:
            raise
        raise OverrideError(message) from error


def _message(error: Exception, overrides: Sequence[str]) -> str | None:
    """Return one line about a mistyped override; None if Hydra's own message is better."""
    if (
        isinstance(error, MissingConfigException)
        and error.missing_cfg_file
        and error.options is not None
    ):
        group, _, option = error.missing_cfg_file.rpartition("/")
        return _unknown_option(group, option, error.options)
    if isinstance(error, OverrideParseException) and "=" not in error.override:
        return _malformed(error.override)
    if isinstance(error, FileExistsError | NotADirectoryError):
        return (
            f"hydra.run.dir: the folder {error.filename} cannot be created, because a file is in "
            f"its place; choose another one"
        )
    if isinstance(error.__cause__, ConfigKeyError | ConfigAttributeError):
        return _unknown_key(str(error.__cause__.full_key), overrides)
    return _value_error(overrides) if type(error) is ValueError else None


def _value_error(overrides: Sequence[str]) -> str | None:
    """Explain what Hydra raises ValueError for.

    These are flags that exclude each other, an empty group, and an option that is a number.
    """
    pairs = [override.partition("=")[::2] for override in overrides]
    keys, known = {key for key, _ in pairs}, groups()
    if {"-m", "--multirun"} & keys and {"-c", "--cfg"} & keys:
        return "--cfg shows the config of one job; leave -m out"
    for group, options in pairs:
        if not group:
            return _malformed(f"={options}")
        for option in options.split(",") if group in known else ():
            if re.fullmatch(r"[-+.\d]+", option) and option not in known[group]:
                return _unknown_option(group, option, known[group])
    for group, options in pairs:
        if group in known and options in ("null", ""):
            return f"{group}={options}: choose an option; {nearest('', known[group])}"
    return None


def _malformed(text: str) -> str:
    return f"'{text}' is neither KEY=VALUE nor GROUP=OPTION; see --help"


def _unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    removed = removal(group, option)
    if removed is not None:
        return f"{group}: {removed}"
    if group == "hydra/launcher" and option in _EXTRAS:
        extra = _EXTRAS[option]
        return (
            f"{group}={option} needs a plugin, which the extra `{extra}` installs: "
            f"pip install -e '.[{extra}]'"
        )
    if group.startswith("hydra/"):
        return f"{group}={option}: {group} has no '{option}'; {nearest(option, options)}"
    own = "" if own_packages() else f"; for an option of an own package, set {VARIABLE}=PACKAGE"
    return (
        f"{group}={option}: {CONFIGS.name}/{group}/ has no '{option}'; "
        f"{nearest(option, options)}{own}"
    )


def _unknown_key(full_key: str, overrides: Sequence[str]) -> str | None:
    """Return one line about a key that does not exist; None if it is not in the overrides.

    Args:
        full_key: The shortest prefix of the typed key that does not exist.
        overrides: The command line without the program's name.
    """
    typed = [override.partition("=")[0] for override in overrides]
    key = next((key for key in typed if f"{key}.".startswith(f"{full_key}.")), None)
    if key is None or key.startswith("hydra."):
        return None
    chosen = [
        override
        for override in overrides
        if override.partition("=")[0] in groups() and "," not in override
    ]
    known: Any = dict(nodes(OmegaConf.to_container(compose_config(chosen), resolve=False)))  # type: ignore[arg-type]
    near = nearest(key, [*known, *groups()])
    of_class = f"{key.rpartition('.')[0]}._target_" in known
    more = f"; +{key}=... sets another argument of its class" if of_class else ""
    return f"unknown key '{key}' on the command line; {near}{more}"
