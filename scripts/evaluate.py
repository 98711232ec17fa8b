"""Test a run's best checkpoint again: `python scripts/evaluate.py RUN`."""

import sys

from thaw.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
