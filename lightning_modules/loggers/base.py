"""What a dashboard takes of a run beyond its curves."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from run_folders.errors import UserError

Pixels = npt.NDArray[np.uint8]

UNLABELLED = 255


class LoggerError(UserError, ValueError):
    """A dashboard cannot take a run."""


@dataclass(frozen=True)
class FinalMetrics:
    """What the run came to.

    Attributes:
        values: `test/...` of the test split, `best/...` of the best epoch, parameters and seconds.
        chosen: `val/...` of the best epoch, where a dashboard would show the last one's.
    """

    values: dict[str, float]
    chosen: dict[str, float]


@dataclass(frozen=True)
class Table:
    """Rows of plain values.

    Attributes:
        columns: Their names.
        rows: One value a column.
    """

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Attributes:
        classes: Names of class 0, 1, ...
        counts: Row the label, column the prediction.
    """

    classes: list[str]
    counts: list[list[int]]


@dataclass(frozen=True)
class Overlay:
    """An image and what its pixels were taken for.

    Attributes:
        image: [H, W, 3].
        masks: Name -> mask [H, W], 0..K-1, or 255 where nothing is labelled.
        names: Of the classes.
    """

    image: Pixels
    masks: dict[str, Pixels]
    names: list[str]


@dataclass(frozen=True)
class Picture:
    """A picture of a test sample.

    Attributes:
        content: The file, PNG or WebP.
        caption: What it shows.
        overlay: The same with masks as layers, where samples have them.
    """

    content: bytes
    caption: str
    overlay: Overlay | None = field(default=None)


Content = FinalMetrics | Table | Confusion | list[Picture] | Path


def confusion_rows(confusion: Confusion, most: int = 10_000) -> Table:
    """The cells of a confusion matrix in which something is, at most so many, the fullest.

    Args:
        confusion: The matrix.
        most: Cells that a dashboard can show.

    Returns:
        label, prediction and count; in the order of the classes.
    """
    cells = [
        (i, j, int(count)) for i, row in enumerate(confusion.counts) for j, count in enumerate(row)
    ]
    if len(cells) > most:
        cells = sorted(sorted((c for c in cells if c[2]), key=lambda cell: -cell[2])[:most])
    names = confusion.classes
    return Table(
        ["label", "prediction", "count"], [[names[i], names[j], count] for i, j, count in cells]
    )


class Dashboard(ABC):
    """A logger of Lightning's that takes more than curves. All of it is called on the first process only."""

    @abstractmethod
    def begin(self, config: dict[str, Any]) -> None:
        """Begin the run, or go on with an earlier one.

        Args:
            config: The resolved, redacted config; commit, versions, hardware, seed and data under
                `provenance`.

        Raises:
            LoggerError: If there is no beginning it.
        """

    @abstractmethod
    def publish(self, name: str, content: Content) -> None:
        """Take something that a finished run has.

        Args:
            name: What it is called, such as `test/classes`; of a file `plan`, `report` or
                `checkpoint`.
            content: Metrics, a table, a confusion matrix, pictures, or a file of the run folder.
        """

    @abstractmethod
    def close(self, code: int) -> None:
        """End the run; a code other than 0 marks it as failed. Without a beginning it does nothing."""
