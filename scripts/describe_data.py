"""Describe a folder or table before training: `python scripts/describe_data.py PATH`."""

import sys

from thaw.commands.describe_data import main

if __name__ == "__main__":
    sys.exit(main())
