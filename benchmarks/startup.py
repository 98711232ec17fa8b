"""Seconds until `train.py` has answered what needs no training: `--help`, `--cfg job`, a mistyped key.

    python -m benchmarks.startup

Peer: an entry point that imports what it trains with before Hydra looks at its words, as templates do. It stands for
lightning-hydra-template, which took 6.1 s on the machine that the goals were set on; the least that it does is importing
lightning, hydra and torch and calling `hydra.main`, and that is what is measured, so the ratio is a lower bound.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.measuring import alternate, setting
from benchmarks.rows import Goal, Limit, Row, Side, arguments, command

_ROOT = Path(__file__).resolve().parent.parent
_PEER = """
import hydra, lightning, torch
from omegaconf import DictConfig
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

@hydra.main(version_base="1.3", config_path=None)
def main(cfg: DictConfig) -> None:
    pass

main()
"""
# Each answer with the words that ask the peer for the same, and the exit code that belongs to it.
_ASKED = {
    "--help": (["--help"], ["--help"], 0),
    "--cfg job": (["--cfg", "job"], ["--cfg", "job"], 0),
    "a mistyped key": (["model.lrr=1"], ["model.lrr=1"], 1),
}
_AT_MOST, _AIM = 0.5, 0.3


def measure(given: argparse.Namespace) -> list[Row]:
    """Measure each answer."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        peer = Path(folder) / "train.py"
        peer.write_text(_PEER, encoding="utf-8")
        nothing = Path(folder) / "nothing.py"
        nothing.touch()
        for what, (own_words, peer_words, code) in _ASKED.items():
            times = alternate(
                {
                    "limit": partial(_answer, nothing, [], 0),
                    "Thaw": partial(_answer, _ROOT / "train.py", own_words, code),
                    "default": partial(_answer, peer, peer_words, code),
                },
                given.repetitions,
            )
            limit = Limit(times.pop("limit").median, "Python itself starts and ends")
            sides = {name: Side(timing.seconds) for name, timing in times.items()}
            own = statistics.median(sides["Thaw"].seconds)
            goals = (Goal("seconds", own, _AT_MOST, _AIM, less=True),)
            rows.append(
                Row(f"S8 {what}", f"`train.py` {what}", sides, goals, setting("torch", "lightning", "hydra-core"), limit)
            )
    return rows


def _answer(script: Path, words: list[str], code: int) -> None:
    """Ask a script; raises where it ends in another way than it should."""
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, cwd=script.parent, check=False)  # noqa: S603
    if done.returncode != code:
        msg = f"{script.name} {' '.join(words)} ended with {done.returncode}: {done.stderr.decode()[-300:]}"
        raise RuntimeError(msg)


if __name__ == "__main__":
    command(arguments(__doc__, repetitions=7, on_gpus=False), measure)
