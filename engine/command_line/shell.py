"""Commands that are printed for users, and those that start Thaw again. Standard library only."""

import shlex
import sys
import sysconfig
from pathlib import Path

from engine.config.composing.paths import IS_CHECKOUT

_ROOT = Path(__file__).resolve().parents[2]


def python_command(name: str) -> list[str]:
    """Return the words that run a command of Thaw in a new process of this Python.

    Args:
        name: The command: train, predict, ...
    """
    if IS_CHECKOUT:
        return [sys.executable, str(_ROOT / _script(name))]
    # -P: a folder in the working directory does not hide a package of Thaw
    return [sys.executable, "-P", "-m", "thaw", name]


def typed_command(name: str) -> list[str]:
    """Return the words with which a user runs a command of Thaw from any folder."""
    installed = Path(sysconfig.get_path("scripts"), "thaw")
    known = not IS_CHECKOUT and installed.is_file()
    return [str(installed), name] if known else python_command(name)


def shell_command(*words: object) -> str:
    """Return the command line of a program that is run in this folder, from any folder."""
    return f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(map(str, words))}"


def short_name(name: str) -> str:
    """Return how a user types a command of Thaw: `thaw cache`, or a script of the checkout."""
    return f"python {_script(name)}" if IS_CHECKOUT else f"thaw {name}"


def _script(name: str) -> str:
    return "train.py" if name == "train" else f"scripts/{name.replace('-', '_')}.py"
