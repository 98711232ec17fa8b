"""Predict new texts or images, from the run folder alone: `python scripts/predict.py RUN INPUT -o OUT`."""

import argparse
import sys
from pathlib import Path

from engine.processes.outcome import report_failure


def main() -> int:
    """Write what says which sample it is, the prediction and the probabilities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument(
        "inputs", type=Path, nargs="+", metavar="INPUT",
        help="texts: a .txt with a text a line, .csv, .tsv, .jsonl or .parquet; "
        "images: images, folders of images, a .txt with a path a line, or .parquet",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path,
        help=".csv, .tsv, .jsonl or .parquet (default: INPUT.predictions.csv; of several inputs predictions.csv); "
        "for segmentation a folder (default: INPUT.predictions)",
    )  # fmt: skip
    parser.add_argument(
        "--annotations", type=Path, metavar="DIR",
        help="segmentation: masks to be shown beside (default: where the dataset's layout has them)",
    )  # fmt: skip
    parser.add_argument(
        "--column",
        help="column of the texts or images in a table (default: that of the training data)",
    )
    parser.add_argument(
        "--on-bad-rows",
        choices=("error", "skip"),
        default="error",
        help="stop, or leave them out and count them",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT where it exists")
    parser.add_argument(
        "--device", default=None, help="cpu, cuda, ... (default: a GPU where there is one)"
    )
    arguments = parser.parse_args()
    with report_failure() as outcome:
        from engine.prediction.predict import predict

        predict(**vars(arguments))
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
