"""Train, test and report one configuration: `python train.py experiment=bert_finetune`."""

import sys

from engine.config.composing.groups import help_text
from engine.processes.outcome import report_failure


def main() -> int:
    """Print the help, or compose the config with Hydra and run it.

    Returns:
        The exit code: 0 after a finished run, 130 or 143 after an interrupt, 1 after any other
        failure.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        with report_failure() as outcome:
            print(help_text(), end="")
        return outcome.code
    from engine.launch import launch  # Hydra takes half a second to import

    return launch()


if __name__ == "__main__":
    sys.exit(main())
