"""Test a run's best checkpoint again.

It needs only the run folder and the data. With --data it tests on another labelled set.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.processes.outcome import report_failure
from engine.processes.terminal import log_to_terminal
from thaw.commands.merge_tokens import add_merge_tokens


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Print the metrics beside those of metrics.json, and return 1 if they differ.

    With --data, print and record the metrics of other data.
    """
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="another labelled table, or folder, in the format of the run's test data; "
        "the metrics are written to evaluations/ in the run folder",
    )
    parser.add_argument(
        "--on-bad-rows",
        choices=("error", "skip"),
        default="error",
        help="with --data: stop at bad rows, or leave them out and list them",
    )
    other.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of the data, if it is not the one in the run's config.yaml: "
        "the folder of the datasets, or the dataset's own folder if that was renamed",
    )
    add_merge_tokens(parser)
    options = parser.parse_args(arguments)
    log_to_terminal()
    with report_failure() as outcome:
        from engine.evaluation import evaluate, evaluate_on

        if options.data is not None:
            evaluate_on(options.run, options.data, options.on_bad_rows, options.merge_tokens)
        else:
            outcome.code = evaluate(options.run, options.data_dir, options.merge_tokens)
    return outcome.code
