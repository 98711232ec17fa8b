"""Measure all rows, or the rows given as arguments, and write RESULTS.md.

    python -m benchmarks [S1 S2 ...] [--data-dir DIR] [--backbone FOLDER]

Each script runs in a process of its own. Nothing else should run on the machine meanwhile. If a
script fails, the others still run.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.table import load_rows, page

# Row -> the script that measures it.
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
    "S13": "image_files",
    "S14": "text_files",
}
_TEXT_ROWS = ("S1", "S2", "S7")  # their scripts take a text backbone


def main() -> int:
    """Run the scripts one after another.

    Returns:
        1 if a script failed, else 0.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of {', '.join(SCRIPTS)} (default: all rows)"
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
        parser.error(f"unknown row {', '.join(unknown)}; known: {', '.join(SCRIPTS)}")
    failed = []
    for row in given.rows or SCRIPTS:
        options = ["--data-dir", str(given.data_dir), "--save"]
        options += ["--backbone", given.backbone] if row in _TEXT_ROWS else []
        if subprocess.run(  # noqa: S603
            [sys.executable, "-m", f"benchmarks.{SCRIPTS[row]}", *options], check=False
        ).returncode:
            failed.append(row)
    Path(__file__).with_name("RESULTS.md").write_text(page(load_rows()), encoding="utf-8")
    if failed:
        print(
            f"error: could not measure {', '.join(failed)}; see the output above",
            file=sys.stderr,
        )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
