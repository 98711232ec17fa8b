"""Write a page that compares runs: `python scripts/report.py RUN [RUN ...] -o FILE`."""

import sys

from thaw.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
