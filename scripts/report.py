"""Write a page that compares runs: `python scripts/report.py RUN [RUN ...] -o FILE`.

For a single run without -o, its report is written again.
"""

import argparse
import sys
from pathlib import Path

from engine.processes.outcome import report_failure
from run_folders.errors import one_line


def main() -> int:
    """Write the page and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders; the first is the baseline"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the page (default: comparison.html, or the report.html of a single run)",
    )
    arguments = parser.parse_args()
    with report_failure() as outcome:
        from reports.comparison import write_comparison
        from reports.page import write_report

        if len(arguments.runs) == 1 and arguments.output is None:
            print(one_line(write_report(arguments.runs[0])))
        else:
            target = arguments.output or Path("comparison.html")
            print(one_line(write_comparison(arguments.runs, target)))
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
