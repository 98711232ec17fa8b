"""A row of the table of speeds: what was measured on each side, what it has to reach, and how far the machine could go.

Each script of this package that measures speed gives rows. `command` makes it a command of its own:
it prints the rows and, with `--save`, keeps them under `results/`, from which `python -m
benchmarks` draws `RESULTS.md`.
"""

import argparse
import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.measuring import Timing

RESULTS = Path(__file__).parent / "results"
_TEXT = argparse.RawDescriptionHelpFormatter


@dataclass(frozen=True)
class Side:
    """One of those who did the work.

    Attributes:
        seconds: Of what was measured, one metric a repetition.
        share: What part of the whole work was measured, above 0 and up to 1; a peer that repeats
            the same step for an hour is measured for some of its steps.
        quality: What came of it: an accuracy, or the numerical difference from the others.
        memory: Peak memory on top of the data, in bytes, where that is asked for.
    """

    seconds: tuple[float, ...]
    share: float = 1.0
    quality: str = ""
    memory: int | None = None

    @property
    def timing(self) -> Timing:
        """Seconds of the whole work."""
        return Timing(tuple(value / self.share for value in self.seconds))


@dataclass(frozen=True)
class Goal:
    """What is wanted of a row.

    Attributes:
        what: Name of the metric, as `times the default`, and its unit.
        value: What was reached.
        at_least: What has to be reached; where `less` is better, what must not be passed.
        aim: What would be fine.
        less: Whether smaller is better.
    """

    what: str
    value: float
    at_least: float
    aim: float | None = None
    less: bool = False

    @property
    def reached(self) -> bool:
        """Whether that is what has to be."""
        return self.value <= self.at_least if self.less else self.value >= self.at_least


@dataclass(frozen=True)
class Limit:
    """What the hardware would allow.

    Attributes:
        seconds: The least that the work can take.
        why: Operations or bytes, and the rate that was measured for them.
    """

    seconds: float
    why: str


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        key: `S1`; with a word where a piece of work has variants, `S2 linear`.
        work: What was done, on what, in one line.
        sides: `Thaw`, `default` and `tuned`, each with what it took.
        goals: What is wanted.
        limit: What the hardware would allow.
        setting: Hardware and versions.
        device: What it ran on.
    """

    key: str
    work: str
    sides: dict[str, Side]
    goals: tuple[Goal, ...]
    setting: str
    limit: Limit | None = None
    device: Literal["cpu", "cuda"] = "cpu"

    def save(self, folder: Path = RESULTS) -> Path:
        """Write the row to `<folder>/<device>/<key>.json`."""
        path = folder / self.device / f"{self.key.replace(' ', '_')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> "Row":
        """The inverse of `save`."""
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kept["sides"] = {
            name: Side(**{**side, "seconds": tuple(side["seconds"])})
            for name, side in kept["sides"].items()
        }
        kept["goals"] = tuple(Goal(**goal) for goal in kept["goals"])
        kept["limit"] = None if kept["limit"] is None else Limit(**kept["limit"])
        return cls(**kept)


def ratio_goals(
    sides: dict[str, Side], *wanted: tuple[str, float, float | None]
) -> tuple[Goal, ...]:
    """Goals of the kind `times the default`: medians over the repetitions that both sides have.

    Args:
        sides: As for `Row`.
        wanted: Name of a peer, what has to be reached, what would be fine.

    Returns:
        A goal for each.
    """

    def ratio(peer: Side) -> float:
        own = sides["Thaw"]
        pairs = zip(
            own.seconds, peer.seconds, strict=False
        )  # one of them may have been repeated more often
        return statistics.median(theirs / peer.share / (ours / own.share) for ours, theirs in pairs)

    return tuple(
        Goal(f"times the {peer}", ratio(sides[peer]), least, aim) for peer, least, aim in wanted
    )


def arguments(
    description: str | None, repetitions: int, *, on_gpus: bool = True
) -> argparse.ArgumentParser:
    """What every script takes.

    Args:
        description: The script's docstring.
        repetitions: Measurements of each side unless others are asked for.
        on_gpus: Whether it can be measured there.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=_TEXT)
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="folder of the datasets (default: data)"
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        default=repetitions,
        help=f"of each side (default: {repetitions})",
    )
    devices = ("cpu", "cuda") if on_gpus else ("cpu",)
    parser.add_argument(
        "--device",
        choices=devices,
        default="cuda" if on_gpus and torch.cuda.is_available() else "cpu",
    )
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: 2)")
    parser.add_argument(
        "--save", action="store_true", help="keep the rows for benchmarks/RESULTS.md"
    )
    return parser


def command(
    parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Iterable[Row]]
) -> None:
    """Read the command line, measure, print, and keep what is to be kept, each row as soon as it is there."""
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for row in measure(given):
        print(described(row))
        if given.save:
            row.save()


def described(row: Row) -> str:
    """A row for a person: each side, each goal and the limit, a line each."""
    lines = [f"{row.key}: {row.work}", f"  {row.setting}, {row.device}"]
    for name, side in row.sides.items():
        took = side.timing
        part = "" if side.share == 1 else f", measured {side.share:.1%} of it"
        memory = "" if side.memory is None else f", {side.memory / 2**20:,.0f} MiB"
        quality = f", {side.quality}" if side.quality else ""
        spread = f"spread {took.spread:.0%}, n = {len(side.seconds)}"
        lines.append(f"  {name}: {took.median:.4g} s ({spread}{part}){memory}{quality}")
    for goal in row.goals:
        wanted = (
            f"{'at most' if goal.less else 'at least'} {goal.at_least:g}, aim {goal.aim:g}"
            if goal.aim
            else f"{goal.at_least:g}"
        )
        lines.append(
            f"  {goal.what}: {goal.value:.4g} ({wanted}; {'reached' if goal.reached else 'MISSED'})"
        )
    if row.limit is not None:
        far = row.sides["Thaw"].timing.median / row.limit.seconds
        lines.append(
            f"  limit: {row.limit.seconds:.4g} s ({row.limit.why}); Thaw takes {far:.1f} times that"
        )
    return "\n".join(lines)
