"""Describe a folder or table: what is in it, the config that reads it, and the command to train.

Nothing is trained, and nothing is written but the config that -o names.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.processes.outcome import report_failure
from engine.processes.terminal import console, log_to_terminal


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Print the description, and write the config."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument("path", type=Path, help="a folder, or a .csv, .tsv, .jsonl or .parquet")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="data.KEY=VALUE",
        help="settings that the data does not decide, such as data.text_column=tweet",
    )
    parser.add_argument(
        "--kind",
        help="text, multilabel_text, image, multilabel_image or segmentation (default: found)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, help="write the config, for example configs/data/moods.yaml"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing config")
    parser.add_argument(
        "--tokenizer",
        help="count tokens with it: a name on the Hugging Face Hub, or a folder",
    )
    parser.add_argument(
        "--max-length", type=int, default=128, help="tokens that training reads (default: 128)"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=10_000,
        help="most images that are opened in each split (default: 10000); all are counted",
    )
    options = parser.parse_intermixed_args(arguments)
    log_to_terminal()
    with report_failure() as outcome:
        from engine.describing.describing import describe_data

        program = "python train.py" if prog is None else f"{prog.split()[0]} train"
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
        typed = "python scripts/describe_data.py" if prog is None else prog
        words = sys.argv[1:] if arguments is None else arguments
        command = f"{typed} {shlex.join(words)}"
        shown = console(width=width)
        describe_data(**vars(options), program=program, command=command, console=shown)
    return outcome.code
