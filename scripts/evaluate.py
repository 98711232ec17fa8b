"""Test a run's best checkpoint again, from the run folder alone: `python scripts/evaluate.py RUN`."""

import argparse
import sys
from pathlib import Path

from engine.processes.outcome import report_failure


def main() -> int:
    """Print the metrics beside those of metrics.json; exit 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--data-dir", help="where the data is now, if not where config.yaml says")
    arguments = parser.parse_args()
    with report_failure() as outcome:
        from engine.evaluation import evaluate

        outcome.code = evaluate(arguments.run, arguments.data_dir)
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
