"""Predict new texts or images with a trained run: `python scripts/predict.py RUN INPUT`."""

import sys

from thaw.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
