"""Predict new texts or images with a trained run.

It needs only the run folder and the inputs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.processes.outcome import report_failure
from engine.processes.terminal import log_to_terminal
from thaw.commands.merge_tokens import add_merge_tokens


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Write the predictions and their probabilities, or for segmentation the masks."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="texts: a .txt with one text per line, .csv, .tsv, .jsonl or .parquet; "
        "images: images, folders of images, a .txt with one path per line, or a table",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help=".csv, .tsv, .jsonl or .parquet (default: INPUT.predictions.csv; for several inputs "
        "predictions.csv); for segmentation a folder (default: INPUT.predictions; for several "
        "inputs predictions)",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="DIR",
        help="segmentation: folder of annotated masks to show beside the predictions "
        "(default: the one beside the images, in the dataset's layout)",
    )
    parser.add_argument(
        "--column",
        help="column of the texts or images in a table (default: that of the training data)",
    )
    parser.add_argument(
        "--on-bad-rows",
        choices=("error", "skip"),
        default="error",
        help="stop at unusable rows or images, or leave them out and count them",
    )
    parser.add_argument("--delimiter", help="character between two fields (default: found)")
    parser.add_argument(
        "--quoting",
        choices=("csv", "none"),
        help="csv, or none if quotes are part of the texts (default: found)",
    )
    parser.add_argument("--encoding", help="Python's name of the file's encoding (default: found)")
    parser.add_argument("--force", action="store_true", help="replace existing output")
    parser.add_argument(
        "--device", default=None, help="cpu, cuda, ... (default: a GPU if there is one)"
    )
    add_merge_tokens(parser)
    options = parser.parse_args(arguments)
    log_to_terminal()
    with report_failure() as outcome:
        from datamodules.reading.formats import TableFormat
        from engine.predict import predict

        given = vars(options)
        settings = {name: given.pop(name) for name in ("encoding", "delimiter", "quoting")}
        predict(**given, table_format=TableFormat(**settings, option="--"))
    return outcome.code
