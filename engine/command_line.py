"""What `train.py` answers before anything heavy is imported: help, the composed config, and mistyped words."""

import itertools
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from engine.config_files import Composition, ConfigFiles, Override, UnknownOptionError, UnsupportedError, nearest

CONFIGS = Path(__file__).resolve().parent.parent / "configs"

_HELP = """Thaw: fine-tune pretrained networks, and trust the result.

usage: python train.py [GROUP=OPTION ...] [KEY=VALUE ...] [-m]

  python train.py                                     the embedded sample: offline, under a minute
  python train.py experiment=ctbert_bigru_finetune    a named experiment
  python train.py experiment=... plan=true            print what would be trained, and stop
  python train.py -m experiment=a,b seed=1,2,3        a sweep
  python train.py experiment=... hydra.run.dir=RUN ckpt_path=last    go on with an interrupted run

flags:
  --cfg job        print the composed config and stop (--resolve: with interpolations resolved)
  -m, --multirun   one job for each combination of comma-separated values; sweep.resume=FOLDER goes on with a sweep
  --hydra-help     Hydra's own flags

groups and their options:
{groups}
keys: every key of `--cfg job` can be set, for example trainer.max_epochs=3; +KEY=VALUE adds one that is not listed.
"""


class UnknownKeyError(ValueError):
    """An override names a key that the composed config does not have."""


def answer_early(arguments: list[str]) -> int | None:
    """Answer what needs no training.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit code, or None where Hydra has to go on.
    """
    flags = [word for word in arguments if word.startswith("-")]
    words = [word for word in arguments if not word.startswith("-")]
    files = ConfigFiles(CONFIGS)
    if flags in (["--help"], ["-h"]):
        print(_HELP.format(groups=_groups(files)), end="")
        return 0
    show = flags in (["--cfg"], ["-c"])
    if show:
        at = arguments.index(flags[0]) + 1
        if arguments[at : at + 1] != ["job"]:
            return None
        words = arguments[: at - 1] + arguments[at + 1 :]
    elif any(flag not in ("-m", "--multirun") for flag in flags):
        return None
    try:
        _check_form(words)
        _check_plugins(words)
        overrides = [Override.parse(word) for word in words]
        choices = _checked_choices(files, overrides)
        if show:
            print(_composed(files, choices, overrides).to_yaml(), end="")
            return 0
    except UnsupportedError:
        return None
    except (UnknownOptionError, UnknownKeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return None


def _check_form(words: list[str]) -> None:
    for word in words:
        if word.startswith("=") or ("=" not in word and not word.startswith("~")):
            msg = f"'{word}' is neither KEY=VALUE nor GROUP=OPTION; see --help"
            raise UnknownKeyError(msg)


_PLUGINS = {  # word -> module that it needs, and the extra that brings it
    "hydra/sweeper=optuna": ("optuna", "sweep"),
    "hydra/launcher=joblib": ("hydra_plugins.hydra_joblib_launcher", "sweep"),
    "hydra/launcher=submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "hydra/launcher=ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
}


def _check_plugins(words: list[str]) -> None:
    for word in words:
        module, extra = _PLUGINS.get(word, ("", ""))
        if module and find_spec(module) is None:
            msg = f"{word} needs {module.rpartition('.')[2]}; the extra `{extra}` brings it: pip install -e '.[{extra}]'"
            raise UnknownKeyError(msg)


def _groups(files: ConfigFiles) -> str:
    lines = [f"  {group:<11}{', '.join(options)}\n" for group, options in files.groups().items() if group != "hydra"]
    return "".join(lines)


def _split(files: ConfigFiles, overrides: list[Override]) -> tuple[list[Override], list[Override]]:
    """Part the overrides into choices of a group's option and single keys; Hydra checks its own."""
    groups = files.groups()
    ours = [override for override in overrides if not re.match(r"hydra(?![\w-])", override.key)]
    return [o for o in ours if o.key in groups], [o for o in ours if o.key not in groups]


def _checked_choices(files: ConfigFiles, overrides: list[Override]) -> list[dict[str, str]]:
    """Check every option and, in every combination of options, every key.

    Returns:
        Group -> option, once for each combination.
    """
    groups = files.groups()
    chosen, keys = _split(files, overrides)
    for override in chosen:
        if override.prefix:
            raise UnsupportedError(override.prefix)
        for option in override.options():
            if option != "null" and option not in groups[override.key]:
                raise UnknownOptionError(files.unknown_option(override.key, option))
    names = [override.key for override in chosen]
    products = itertools.product(*(override.options() for override in chosen))
    combinations = [dict(zip(names, options, strict=True)) for options in products]
    for choices in combinations:
        known = files.compose(choices, [])
        for override in keys:
            _check_key(override, known, list(groups))
    return combinations


def _composed(files: ConfigFiles, choices: list[dict[str, str]], overrides: list[Override]) -> Composition:
    if len(choices) != 1:
        raise UnsupportedError(choices)
    return files.compose(choices[0], _split(files, overrides)[1])


def _check_key(override: Override, known: Composition, groups: list[str]) -> None:
    if override.key in known.origins:
        return
    node = known.values
    parents = override.key.split(".")[:-1]
    for parent in parents:
        node = node.get(parent, {})
        if isinstance(node, str) and "${" in node:
            raise UnsupportedError(override.key)  # below an interpolation: only Hydra can tell
        if not isinstance(node, dict):
            break
    if override.prefix in ("+", "++") and parents and parents[0] in known.values:
        return  # an argument that no file states; its target's signature decides
    near = nearest(override.key, known.paths() + groups)
    msg = f"unknown key '{override.key}' on the command line; {near}"
    raise UnknownKeyError(msg)
