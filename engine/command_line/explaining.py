"""One line for each error of Hydra about an override."""

import re
import shlex
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import MissingConfigException
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, ValidationError

from engine.command_line.published_optuna import replacement
from engine.command_line.quoting import parses, unclosed, with_quotes
from engine.config.composing.composition import compose_config
from engine.config.composing.groups import groups
from engine.config.composing.paths import CONFIGS
from engine.old_names import removal
from run_folders.errors import UserError, brief, nearest
from run_folders.nested import nodes
from run_folders.own_packages import VARIABLE, own_packages

# Launcher -> the extra that installs its plugin.
_EXTRAS = {
    "joblib": "sweep",
    "ray": "ray",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
}
# Frames of Thaw that call Hydra: `explaining_errors` and `launch`.
_BEFORE_HYDRA = 2


class OverrideError(UserError, ValueError):
    """An override that names an unknown option or key."""


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
    if isinstance(error, OverrideParseException):
        return _not_parsed(error.override, overrides)
    if isinstance(error, FileExistsError | NotADirectoryError):
        return (
            f"hydra.run.dir: the folder {error.filename} cannot be created, because a file is in "
            f"its place; choose another one"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename} cannot be written: {error.strerror}; "
            f"choose another hydra.run.dir or hydra.sweep.dir"
        )
    if isinstance(error.__cause__, ConfigKeyError | ConfigAttributeError):
        key = str(error.__cause__.full_key)
        return replacement(key) or _unknown_key(key, overrides)
    if isinstance(error.__cause__, ValidationError):
        key = str(error.__cause__.full_key)
        return replacement(key) if key == "hydra.sweeper.sampler" else None
    explained = _value_error(overrides) if type(error) is ValueError else None
    return explained or _hydra_failure(error, overrides)


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


def _hydra_failure(error: Exception, overrides: Sequence[str]) -> str | None:
    """Return one line if Hydra fails with its own settings, before it has called Thaw."""
    modules = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
    called = [name for name in modules if name.startswith(("engine.", "hydra_plugins."))]
    typed = [text for text in overrides if text.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if not typed or isinstance(error, UserError | HydraException) or called[_BEFORE_HYDRA:]:
        return None
    return (
        f"Hydra fails with {' '.join(typed)} ({brief(error.__cause__ or error)}); "
        f"correct these settings, or leave them out"
    )


def _not_parsed(override: str, overrides: Sequence[str]) -> str:
    """Explain an override that is not in Hydra's grammar."""
    key, equals, _ = override.partition("=")
    if not equals:
        return _malformed(override)
    if unclosed(override):
        return _split_at_blanks(override, overrides)
    suggestion = with_quotes(override, sweeps=bool({"-m", "--multirun"} & set(overrides)))
    if suggestion is not None:
        return f"{override}: Hydra reads this value only in quotes; type {suggestion}"
    if not parses(f"{key}=1"):
        return f"{override}: '{key}' is no key; --cfg job shows all keys"
    if override.partition("=")[2].startswith("{"):
        return (
            f"{override}: Hydra cannot read this mapping; leave the quotes of its keys out, put "
            f"each text in it in quotes, or write it into a YAML file"
        )
    return f'{override}: Hydra cannot read this value; put each text in it in quotes: {key}=["a b"]'


def _split_at_blanks(override: str, overrides: Sequence[str]) -> str:
    """Explain an override with an open bracket, which the next arguments may close."""
    start = overrides.index(override) if override in overrides else len(overrides)
    joined = (" ".join(overrides[start:end]) for end in range(start + 2, len(overrides) + 1))
    whole = next((text for text in joined if not unclosed(text)), "")
    advice = shlex.quote(whole) if parses(whole) else with_quotes(whole, sweeps=False)
    if advice is None:
        return f"{override}: a bracket is not closed; close it, and put the argument in quotes"
    return f"{override} ... : the shell split this argument at a blank; put it in quotes: {advice}"


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
    near = nearest(option, options)
    own = (
        f"for an option of an own package, set {VARIABLE}=PACKAGE and PYTHONPATH to its parent "
        f"folder"
    )
    more = "" if own_packages() else f"{_next_to(near)} {own}"
    return f"{group}={option}: {CONFIGS.name}/{group}/ has no '{option}'; {near}{more}"


def _next_to(question_or_list: str) -> str:
    """Return what separates a text from its continuation."""
    return "" if question_or_list.endswith("?") else ";"


def _merged_mapping(full_key: str, overrides: Sequence[str]) -> str | None:
    """Return one line about a mapping that Hydra merges into another one; None if there is none."""
    for override in overrides:
        key, _, value = override.partition("=")
        if full_key.startswith(f"{key}.") and value.startswith("{"):
            return (
                f"{key}: the config has a mapping there, which has no "
                f"'{full_key.removeprefix(f'{key}.')}', and Hydra merges both; to replace it, "
                f"type {shlex.quote(f'~{key}')} {shlex.quote(f'+{override}')}"
            )
    return None


def _unknown_key(full_key: str, overrides: Sequence[str]) -> str | None:
    """Return one line about a key that does not exist; None if it is not in the overrides.

    Args:
        full_key: The shortest prefix of the typed key that does not exist.
        overrides: The command line without the program's name.
    """
    typed = [override.partition("=")[0] for override in overrides]
    key = next((key for key in typed if f"{key}.".startswith(f"{full_key}.")), None)
    if key is None:
        return _merged_mapping(full_key, overrides)
    if key.startswith("hydra."):
        return None
    chosen = [
        override
        for override in overrides
        if override.partition("=")[0] in groups() and "," not in override
    ]
    try:
        cfg = compose_config(chosen)
    except HydraException:  # options of --config-dir
        cfg = compose_config([])
    known: Any = dict(nodes(OmegaConf.to_container(cfg, resolve=False)))  # type: ignore[arg-type]
    near = nearest(key, [*known, *groups()])
    of_class = f"{key.rpartition('.')[0]}._target_" in known
    more = f"{_next_to(near)} +{key}=... sets another argument of its class" if of_class else ""
    return f"unknown key '{key}' on the command line; {near}{more}"
