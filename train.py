"""Train, test and report one configuration: `python train.py experiment=bert_finetune`."""

import sys

from engine.command_line import answer_early


def main() -> int:
    """Answer at once what needs no training; else compose with Hydra and run.

    Returns:
        The exit code: 0 after a finished run, 130 or 143 after an interrupt, 1 after any other failure.
    """
    code = answer_early(sys.argv[1:])
    if code is not None:
        return code
    from engine.launch import launch  # Hydra takes half a second to import

    return launch()


if __name__ == "__main__":
    sys.exit(main())
