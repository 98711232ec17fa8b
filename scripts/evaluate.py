"""Test a run's best checkpoint again: `python scripts/evaluate.py RUN`.

It needs only the run folder and the data. With --data it tests on another labelled set.
"""

import argparse
import sys
from pathlib import Path

from engine.processes.outcome import report_failure
from engine.processes.terminal import log_to_terminal


def main() -> int:
    """Print the metrics beside those of metrics.json, and return 1 if they differ.

    With --data, print and record the metrics of other data.
    """
    parser = argparse.ArgumentParser(description=__doc__)
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
    arguments = parser.parse_args()
    with report_failure() as outcome:
        from engine.evaluation import evaluate, evaluate_on

        if arguments.data is not None:
            evaluate_on(arguments.run, arguments.data, arguments.on_bad_rows)
        else:
            outcome.code = evaluate(arguments.run, arguments.data_dir)
    return outcome.code


if __name__ == "__main__":
    log_to_terminal()
    sys.exit(main())
