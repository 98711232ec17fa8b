"""Seconds that a run spends on imports: `import engine.run` beside `import torch, lightning`.

    python -m benchmarks.imports

Both import torchmetrics, which Lightning requires, and with it torchvision, scipy and parts of
transformers. The difference is what Thaw adds.
"""

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.measuring import alternate, setting
from benchmarks.rows import Goal, Limit, Row, Side, arguments, command

_ROOT = Path(__file__).resolve().parent.parent
_AT_MOST, _AIM = 1.5, 1.2


def measure(given: argparse.Namespace) -> list[Row]:
    """Measure both imports and the start of Python alone, each in a process of its own."""
    programs = {"limit": "", "Thaw": "import engine.run", "default": "import torch, lightning"}
    times = alternate(
        {name: partial(_run, program) for name, program in programs.items()}, given.repetitions
    )
    limit = Limit(times.pop("limit").median, "Python itself starts and ends")
    multiple = times["Thaw"].median / times["default"].median
    return [
        Row(
            "S11",
            "a process that imports what a run needs; default: `import torch, lightning`",
            {name: Side(timing.seconds) for name, timing in times.items()},
            (Goal("times as long as the default", multiple, _AT_MOST, _AIM, less=True),),
            setting("torch", "lightning", "torchmetrics"),
            limit,
        )
    ]


def _run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], cwd=_ROOT, check=True)  # noqa: S603 - our own program


if __name__ == "__main__":
    command(arguments(__doc__, repetitions=7, on_gpus=False), measure)
