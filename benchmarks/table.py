"""The text of `RESULTS.md`, made from the saved rows."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import RESULTS, Goal, Row, Side

_BASELINES = ("default", "tuned")
_HEAD = """\
# Measured speeds

`python -m benchmarks` writes this page from the saved measurements of each script.
[EXPLAINED.md](EXPLAINED.md) has further measurements and profiles.

- Times are medians in seconds, followed by the spread and n, the number of repetitions. The spread
  is the difference of the slowest and the fastest repetition, as a share of the median.
- Slow baselines repeat the same step for very long. They were timed on a sample of steps and
  extrapolated; the column `measured` has the share that was timed.
- One command measures Thaw and its baselines. They take turns of a second or less (S1, S2, S7) or
  alternate after each repetition (S3, S4, S5, S10, S11, S13, S14). In S9 they run one after
  the other.
- A ratio is the median of the ratios of single repetitions, over the repetitions that both sides
  have.
- The limit is the time that the operations or bytes of the work take at the peak rate. That rate
  was measured on this machine with a large matrix product or a large copy. Single operations
  exceed it.
- The rows S2, S3 and S4 were measured before two optimizations were removed:
  [cost of the removal](EXPLAINED.md#rows-measured-with-removed-code).
"""
_DEVICES = {"cpu": "On a CPU", "cuda": "On a GPU"}


def load_rows(folder: Path = RESULTS) -> list[Row]:
    """Return all saved rows, sorted by device and key."""
    rows = [Row.load(path) for path in folder.glob("*/*.json")]
    return sorted(
        rows,
        key=lambda row: (
            row.device,
            int("".join(c for c in row.key.split()[0] if c.isdigit())),
            row.key,
        ),
    )


def page(rows: Sequence[Row]) -> str:
    """Return the page as Markdown."""
    parts = [_HEAD]
    for device, title in _DEVICES.items():
        own = [row for row in rows if row.device == device]
        if own:
            parts += [f"## {title}\n", _table(own), *(_details(row) for row in own)]
    if all(row.device == "cpu" for row in rows):
        parts.append("No GPU was at hand.\n")
    return "\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| | work | Thaw, s | baseline, default, s | baseline, tuned, s "
        "| reached | needed | aim | limit, s | times the limit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sides = [_time_cell(row.sides.get(name)) for name in ("Thaw", *_BASELINES)]
        goals = [
            " / ".join(_goal(goal, part) for goal in row.goals)
            for part in ("value", "at_least", "aim")
        ]
        far = (
            ""
            if row.limit is None
            else f"{row.sides['Thaw'].timing.median / row.limit.seconds:.1f}"
        )
        limit = "" if row.limit is None else _three_digits(row.limit.seconds)
        lines.append(f"| {' | '.join([row.key, row.work, *sides, *goals, limit, far])} |")
    return "\n".join(lines) + "\n"


def _time_cell(side: Side | None) -> str:
    return (
        ""
        if side is None
        else f"{_three_digits(side.timing.median)} ({_spread(side)}n {len(side.seconds)})"
    )


def _three_digits(number: float) -> str:
    """Format a number with three significant digits."""
    return f"{float(f'{number:.3g}'):,g}"


def _spread(side: Side) -> str:
    return f"{side.timing.spread:.0%}, " if len(side.seconds) > 1 else ""


def _goal(goal: Goal, part: str) -> str:
    value = getattr(goal, part)
    if value is None:
        return "-"
    shown = _three_digits(value)
    return f"**{shown}**, missed" if part == "value" and not goal.reached else shown


def _details(row: Row) -> str:
    lines = [
        f"### {row.key}: {row.work}\n",
        f"{row.setting}.\n",
        "| side | median, s | spread | n | measured | memory, MiB | quality |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for name, side in row.sides.items():
        memory = "" if side.memory is None else f"{side.memory / 2**20:,.0f}"
        took = side.timing
        cells = [
            f"{took.median:.4g}",
            _spread(side).rstrip(", "),
            str(len(side.seconds)),
            f"{side.share:.3g}",
            memory,
        ]
        lines.append(f"| {' | '.join([name, *cells, side.quality])} |")
    lines.append("")
    for goal in row.goals:
        aim = "" if goal.aim is None else f", aim {goal.aim:g}"
        bound = "at most" if goal.less else "at least"
        lines.append(
            f"- {goal.what}: {goal.value:.3g}, {bound} {goal.at_least:g}{aim}: {_verdict(goal)}"
        )
    if row.limit is not None:
        lines.append(f"- limit: {row.limit.seconds:.3g} s, {row.limit.why}")
    return "\n".join(lines) + "\n"


def _verdict(goal: Goal) -> str:
    return "reached" if goal.reached else "missed"
