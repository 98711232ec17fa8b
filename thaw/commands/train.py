"""Train, test and report one configuration, or run a sweep."""

import sys
from collections.abc import Sequence

from engine.config.composing.groups import help_text
from engine.processes.outcome import report_failure


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Print the help, or compose the config with Hydra and run it.

    Args:
        arguments: The words of the command line; None for those of this process.
        prog: How the user calls this command.

    Returns:
        The exit code: 0 after a finished run, 130 or 143 after an interrupt, 1 after any other
        failure.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(words):
        with report_failure() as outcome:
            print(help_text(prog or "python train.py"), end="")
        return outcome.code
    from engine.launch import launch  # Hydra takes half a second to import

    return launch(words)
