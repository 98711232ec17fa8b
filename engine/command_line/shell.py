"""Commands that are printed for users to paste into a shell. Standard library only."""

import shlex
import sys
from pathlib import Path


def shell_command(*words: object) -> str:
    """Return a command that runs Python with these arguments, in this folder, from any folder."""
    command = shlex.join([sys.executable, *map(str, words)])
    return f"cd {shlex.quote(str(Path.cwd()))} && {command}"
