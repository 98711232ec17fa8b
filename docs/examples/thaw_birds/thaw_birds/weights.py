"""Notes with the weight of a bird: a table of texts and numbers."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from datamodules.reading.errors import DataError
from datamodules.reading.labels import LabelReader
from datamodules.reading.splits import random_split
from datamodules.text import TextDataModule

_LARGEST = float(np.finfo(np.float32).max)  # batches have labels in float32


@dataclass(frozen=True)
class Numbers(LabelReader):
    """One number for each sample.

    Attributes:
        column: Column of numbers, or of texts such as `12.5`.
    """

    column: str

    @property
    def columns(self) -> list[str]:
        """The label column."""
        return [self.column]

    def read(self, values: Mapping[str, Any]) -> tuple[float, str]:
        """Return the number."""
        value = values.get(self.column)
        if value is None or (isinstance(value, str) and not value.strip()):
            return 0.0, f"column '{self.column}' is empty"
        number = _number(value)
        if number is None:
            return 0.0, f"column '{self.column}' holds {value!r}; a number is needed"
        if not abs(number) <= _LARGEST:
            return 0.0, f"column '{self.column}' holds {value!r}; a finite number is needed"
        return number, ""

    def divide(
        self, labels: Sequence[float], fraction: float, seed: int
    ) -> tuple[list[int], list[int]]:
        """Return the positions of two parts, drawn at random."""
        return random_split(len(labels), fraction, seed)


def _number(value: object) -> float | None:
    """Return a value as a float, infinite if it is too large; None if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:  # Python reads 12_5 as 125
        return None
    with suppress(ValueError):
        try:
            return float(value)
        except OverflowError:  # an integer beyond the largest float
            return math.inf
    return None


class WeighedNotesDataModule(TextDataModule):
    """Texts with a number each. The arguments are the base's; classes stay None."""

    def label_reader(self) -> Numbers:
        """Return the reader of the numbers in `label_column`."""
        if not isinstance(self.label_column, str):
            msg = f"data.label_column: received {self.label_column!r}; one column is needed"
            raise DataError(msg)
        return Numbers(self.label_column)
