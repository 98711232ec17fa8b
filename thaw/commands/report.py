"""Write a page that compares runs.

For a single run without -o, its report is written again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.processes.outcome import report_failure
from run_folders.errors import one_line


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Write the page and print its path."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
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
    options = parser.parse_args(arguments)
    with report_failure() as outcome:
        from reports.comparison import write_comparison
        from reports.page import write_report

        if len(options.runs) == 1 and options.output is None:
            print(one_line(write_report(options.runs[0])))
        else:
            target = options.output or Path("comparison.html")
            print(one_line(write_comparison(options.runs, target)))
    return outcome.code
