"""What is known of one split while its samples are read one after the other."""

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from datamodules.reading.errors import BadRow

_KEPT = 100  # bad rows; the others are counted


@dataclass
class SplitFacts:
    """Facts about one split.

    Attributes:
        name: train, val or test.
        source: Its file or folder.
        read_as: Format of its table; empty for others.
        samples: Number of usable samples.
        left_unchecked: Number of samples that were not opened, because there are many.
        bad: The first samples that cannot be used.
        bad_count: Number of all of them.
        classes: Class -> number of samples.
        without_label: Number of samples with none of several labels.
        keys: A number for the content of each compared sample; equal for equal samples.
        labels: A number for the label of each compared sample.
        place: Returns the name of the compared sample at a position.
    """

    name: str
    source: str
    read_as: str = ""
    samples: int = 0
    left_unchecked: int = 0
    bad: list[BadRow] = field(default_factory=list)
    bad_count: int = 0
    classes: Counter[int] = field(default_factory=Counter)
    without_label: int = 0
    keys: "array[int]" = field(default_factory=lambda: array("q"))
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    place: Callable[[int], str] = str

    def add_bad(self, row: BadRow) -> None:
        """Count a sample that cannot be used."""
        self.bad_count += 1
        if len(self.bad) < _KEPT:
            self.bad.append(row)

    def add_label(self, label: Any) -> None:  # noqa: ANN401 - see `LabelReader`
        """Count a usable sample with its label: a class, or 0 or 1 for each class."""
        self.samples += 1
        chosen = [label] if isinstance(label, int) else [k for k, on in enumerate(label) if on]
        self.classes.update(chosen)
        self.without_label += not chosen

    def compare(self, key: int, label: object) -> None:
        """Add a sample to those that are compared with each other."""
        self.keys.append(key)
        self.labels.append(hash(label))
