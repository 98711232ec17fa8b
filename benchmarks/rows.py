"""Rows of the table of speeds: measurements of each side, goals, and the limit of the hardware.

Each script that measures speed returns rows. `command` makes the script a command. It prints the
rows and, with `--save`, writes them to `results/`. `python -m benchmarks` writes `RESULTS.md` from
these files.
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
    """Measurements of one program that did the work, Thaw or a baseline.

    Attributes:
        seconds: Seconds of the measured part, one value per repetition.
        share: Measured share of the whole work, above 0 and up to 1. It is below 1 for slow
            baselines, which are measured on a sample of steps.
        quality: Quality of the result: an accuracy, or the numerical difference from other sides.
        memory: Peak memory on top of the data, in bytes; None if it was not measured.
    """

    seconds: tuple[float, ...]
    share: float = 1.0
    quality: str = ""
    memory: int | None = None

    @property
    def timing(self) -> Timing:
        """The seconds extrapolated to the whole work."""
        return Timing(tuple(value / self.share for value in self.seconds))


@dataclass(frozen=True)
class Goal:
    """A goal of a row and the value that was measured.

    Attributes:
        what: Name of the metric, such as `times the default`, and its unit.
        value: The measured value.
        at_least: The required value: a lower bound, or an upper bound if `less`.
        aim: The desired value, beyond the required one.
        less: Whether smaller is better.
    """

    what: str
    value: float
    at_least: float
    aim: float | None = None
    less: bool = False

    @property
    def reached(self) -> bool:
        """Whether the value meets the requirement."""
        return self.value <= self.at_least if self.less else self.value >= self.at_least


@dataclass(frozen=True)
class Limit:
    """The time that the hardware would need at its peak rate.

    Attributes:
        seconds: The least time that the work can take.
        why: Operations or bytes of the work, and the measured peak rate.
    """

    seconds: float
    why: str


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        key: Name of the row, such as `S1`, or `S2 linear` if there are variants.
        work: The work and its data, in one line.
        sides: Name (`Thaw`, `default`, `tuned` and others) -> measurements.
        goals: The goals.
        setting: Hardware and versions.
        limit: The limit of the hardware, if it was computed.
        device: The device of the work.
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
        """Read a row that `save` wrote."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["sides"] = {
            name: Side(**{**side, "seconds": tuple(side["seconds"])})
            for name, side in values["sides"].items()
        }
        values["goals"] = tuple(Goal(**goal) for goal in values["goals"])
        values["limit"] = None if values["limit"] is None else Limit(**values["limit"])
        return cls(**values)


def ratio_goals(
    sides: dict[str, Side], *wanted: tuple[str, float, float | None]
) -> tuple[Goal, ...]:
    """Return a goal `times the <baseline>` for each baseline.

    Its value is the median ratio of seconds, over the repetitions that both sides have.

    Args:
        sides: The sides of the row.
        wanted: For each baseline its name, the required ratio and the aim.
    """

    def ratio(baseline: Side) -> float:
        own = sides["Thaw"]
        # Not strict: one side may have more repetitions.
        pairs = zip(own.seconds, baseline.seconds, strict=False)
        return statistics.median(
            theirs / baseline.share / (ours / own.share) for ours, theirs in pairs
        )

    return tuple(
        Goal(f"times the {baseline}", ratio(sides[baseline]), least, aim)
        for baseline, least, aim in wanted
    )


def arguments(
    description: str | None, repetitions: int, *, on_gpus: bool = True
) -> argparse.ArgumentParser:
    """Return a parser with the options that all scripts share.

    Args:
        description: The script's docstring.
        repetitions: Default number of measurements of each side.
        on_gpus: Whether the work can also be measured on a GPU.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=_TEXT)
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="folder of the datasets (default: data)"
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        default=repetitions,
        help=f"measurements of each side (default: {repetitions})",
    )
    devices = ("cpu", "cuda") if on_gpus else ("cpu",)
    parser.add_argument(
        "--device",
        choices=devices,
        default="cuda" if on_gpus and torch.cuda.is_available() else "cpu",
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument(
        "--save", action="store_true", help="save the rows for benchmarks/RESULTS.md"
    )
    return parser


def command(
    parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Iterable[Row]]
) -> None:
    """Parse the command line and measure; print each row, and save it with `--save`, at once."""
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for row in measure(given):
        print(described(row))
        if given.save:
            row.save()


def described(row: Row) -> str:
    """Return a row as text, with a line for each side, each goal and the limit."""
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
