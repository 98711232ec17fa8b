"""The parts of a description, as plain text and numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datamodules.describing.columns import ColumnFacts
from datamodules.describing.copies import Group, find_copies
from datamodules.describing.split_facts import SplitFacts

Cell = str | int

_MOST_CLASSES = 30  # listed; the others are counted
_MOST_BAD = 5  # listed for each split
_RARE = 10  # a class with this share of the most frequent one's samples, or less, is named


@dataclass(frozen=True)
class Section:
    """One part of a description.

    Attributes:
        title: Its title.
        header: Names of the columns; empty if it has no table.
        rows: Cells of each row: texts, and whole numbers.
        notes: Sentences below the table.
    """

    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    notes: Sequence[str] = field(default_factory=list)


class Lengths(NamedTuple):
    """The spread of a length or size."""

    smallest: int
    median: int
    most: int  # 95 % of the values are not larger
    largest: int

    @classmethod
    def of(cls, values: npt.ArrayLike) -> "Lengths":
        """Return the spread of one or more values."""
        found = np.quantile(np.asarray(values), (0, 0.5, 0.95, 1), method="nearest")
        return cls(*(int(value) for value in found))


def share(count: int, total: int) -> str:
    """Return a share in percent."""
    if not total:
        return "-"
    text = f"{count / total:.1%}".replace("%", " %")
    return "< 0.1 %" if count and text == "0.0 %" else text


def classes_section(splits: Sequence[SplitFacts], names: Sequence[str]) -> Section:
    """Return the samples of each class in each split, and what is odd about them."""
    totals = [sum(split.classes[k] for split in splits) for k in range(len(names))]
    train = splits[0]
    rows: list[list[Cell]] = [
        [name, *(split.classes[k] for split in splits), share(train.classes[k], train.samples)]
        for k, name in enumerate(names[:_MOST_CLASSES])
    ]
    notes = []
    if len(names) > _MOST_CLASSES:
        rest = sum(totals[_MOST_CLASSES:])
        notes.append(f"and {len(names) - _MOST_CLASSES} more classes with {rest:,} samples")
    for split in splits:
        missing = [name for k, name in enumerate(names) if not split.classes[k]]
        if missing and split.samples:
            notes.append(f"no sample in {split.name}: {_listed(missing)}")
    most = max(train.classes.values(), default=0)
    rare = [name for k, name in enumerate(names) if 0 < _RARE * train.classes[k] <= most]
    if rare:
        notes.append(
            f"rare in train (a tenth of the most frequent class or less): {_listed(rare)}; "
            "judge by macro F1, or weight the loss"
        )
    header = ("class", *(split.name for split in splits), f"share of {train.name}")
    return Section(f"Classes ({len(names)})", header, rows, notes)


def bad_rows_section(splits: Sequence[SplitFacts], *, skipped: bool) -> Section | None:
    """Return the samples that cannot be used, with the reasons; None if all can.

    Args:
        splits: The splits.
        skipped: Whether training leaves them out, as data.on_bad_rows=skip was given.
    """
    lines = []
    for split in splits:
        lines += [f"{split.name}: {row}" for row in split.bad[:_MOST_BAD]]
        if split.bad_count > _MOST_BAD:
            lines.append(f"{split.name}: and {split.bad_count - _MOST_BAD:,} more")
    if not lines:
        return None
    lines.append(
        "training leaves them out and lists them (data.on_bad_rows=skip)"
        if skipped
        else "training stops at them; data.on_bad_rows=skip leaves them out and lists them"
    )
    return Section(f"Not usable ({sum(split.bad_count for split in splits):,})", notes=lines)


def copies_section(splits: Sequence[SplitFacts], noun: str) -> Section:
    """Return which samples occur twice, and which have two labels.

    Args:
        splits: The splits.
        noun: What a sample is, in the plural.
    """
    found, lines = find_copies(splits), []
    for (first, second), group in found.between.items():
        lines.append(f"in {first} and in {second}: {_counted(group, noun)}")
    for name, group in found.within.items():
        lines.append(f"more than once in {name}: {_counted(group, noun)}")
    if found.two_labels:
        lines.append(f"with two labels: {_counted(found.two_labels, noun)}")
    if any(split.left_unchecked for split in splits):
        lines.append(f"only the {noun} that were opened are compared")
    return Section("Copies", notes=lines or [f"no {noun[:-1]} occurs twice"])


def unchecked_note(splits: Iterable[SplitFacts], noun: str, option: str) -> list[str]:
    """Return the sentence about samples that were not opened, if there are any."""
    parts = [
        f"{split.samples - split.left_unchecked:,} of {split.samples:,} of {split.name}"
        for split in splits
        if split.left_unchecked
    ]
    if not parts:
        return []
    return [f"opened: {', '.join(parts)} {noun}, evenly spread; {option} opens more"]


def _counted(group: Group, noun: str) -> str:
    shown = noun if group.samples > 1 else noun.removesuffix("s")
    return f"{group.samples:,} {shown}, such as {group.example}"


def _listed(names: Sequence[str], count: int = 8) -> str:
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")


def columns_section(
    table: str, columns: Sequence[ColumnFacts], roles: Mapping[str | None, str]
) -> Section:
    """Return the columns of a table.

    Args:
        table: Name of the split or table.
        columns: The columns.
        roles: Column -> for what it is used.
    """
    rows: list[list[Cell]] = [
        [
            column.name,
            roles.get(column.name) or column.role(),
            column.content,
            share(column.empty, column.rows),
            f"{column.distinct:,} ({share(column.distinct, column.rows)})",
            column.example,
        ]
        for column in columns
    ]
    notes = []
    if any(row[1] == "group?" for row in rows):
        notes.append("group?: data.group_column=NAME keeps equal values of it in one split")
    header = ("column", "use", "content", "empty", "different", "example")
    return Section(f"Columns of {table}", header, rows, notes)
