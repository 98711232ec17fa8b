"""The console command `thaw`, also `python -m thaw`."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

# Command -> what it does, for the help. The module is thaw/commands/<command>.py, with _ for -.
COMMANDS = {
    "train": "train, test and report one configuration, or run a sweep",
    "predict": "predict new texts or images with a trained run",
    "evaluate": "test a trained run again, or on other data",
    "report": "write the page of a run, or a page that compares runs",
    "describe-data": "describe a folder or table, and write the config that reads it",
    "cache": "list or remove stored features",
    "write-schemas": "write the schemas with which editors complete and check configs",
    "wandb-dashboard": "create a project's dashboard at W&B",
}
_HELP = """Thaw: fine-tune pretrained networks, and trust the result.

usage: thaw COMMAND ...

{commands}
`thaw COMMAND --help` explains a command. `thaw --version` prints the version.
Thaw reads ./data and ./configs, and writes to ./runs.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, or print the help or the version.

    Args:
        arguments: The words of the command line; None for those of this process.

    Returns:
        The exit code; 2 if there is no such command.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        lines = [f"  {command:<17}{does}\n" for command, does in COMMANDS.items()]
        print(_HELP.format(commands="".join(lines)), end="")
        return 0
    if name == "--version":
        print(f"thaw {version('thaw')}")
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: thaw has no command {name!r}; known: {known}", file=sys.stderr)
        return 2
    module = import_module(f"thaw.commands.{name.replace('-', '_')}")
    code: int = module.main(words[1:], prog=f"thaw {name}")
    return code


if __name__ == "__main__":
    sys.exit(main())
