"""Measure every row, or those that are named, and write RESULTS.md.

    python -m benchmarks [S1 S2 ...] [--data-dir DIR] [--backbone FOLDER]

Each script runs in a process of its own; nothing else should run meanwhile. What one script fails
at the others do not miss.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.table import kept_rows, page

# Row -> the script that measures it, and whether it takes a text backbone.
SCRIPTS = {
    "S1": "text_finetuning",
    "S2": "text_features",
    "S3": "image_prefix",
    "S4": "image_head",
    "S5": "segmentation_loss",
    "S7": "framework",
    "S9": "keras_bert_speed",
    "S10": "image_input",
    "S11": "imports",
}
_OF_TEXT = ("S1", "S2", "S7")


def main() -> int:
    """Run the scripts one after another; returns 1 where one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of {', '.join(SCRIPTS)} (default: all)"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="folder of the datasets (default: data)"
    )
    parser.add_argument(
        "--backbone",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="text backbone: hub name or folder",
    )
    given = parser.parse_args()
    unknown = [row for row in given.rows if row not in SCRIPTS]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    failed = []
    for row in given.rows or SCRIPTS:
        words = ["--data-dir", str(given.data_dir), "--save"]
        words += ["--backbone", given.backbone] if row in _OF_TEXT else []
        if subprocess.run(  # noqa: S603
            [sys.executable, "-m", f"benchmarks.{SCRIPTS[row]}", *words], check=False
        ).returncode:
            failed.append(row)
    Path(__file__).with_name("RESULTS.md").write_text(page(kept_rows()), encoding="utf-8")
    if failed:
        print(
            f"error: {', '.join(failed)} could not be measured; what they printed stands above",
            file=sys.stderr,
        )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
