"""Test a run's best checkpoint again: `python scripts/evaluate.py RUN`.

It needs only the run folder and the data.
"""

import argparse
import sys
from pathlib import Path

from engine.processes.outcome import report_failure


def main() -> int:
    """Print the metrics beside those of metrics.json; return 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument(
        "--data-dir", help="folder of the data, if it is not the one in the run's config.yaml"
    )
    arguments = parser.parse_args()
    with report_failure() as outcome:
        from engine.evaluation import evaluate

        outcome.code = evaluate(arguments.run, arguments.data_dir)
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
