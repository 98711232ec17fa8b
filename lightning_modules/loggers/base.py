"""The interface of dashboards, and the content of a run that they receive beyond its curves."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from run_folders.errors import UserError

Pixels = npt.NDArray[np.uint8]


class LoggerError(UserError, ValueError):
    """A logger cannot log a run."""


@dataclass(frozen=True)
class FinalMetrics:
    """The metrics of a finished run.

    Attributes:
        values: `test/...` of the test split, `best/...` of the best epoch, number of parameters and
            seconds.
        chosen: `val/...` of the best epoch, for dashboards that would show the last epoch.
    """

    values: dict[str, float]
    chosen: dict[str, float]


@dataclass(frozen=True)
class Table:
    """A table of plain values.

    Attributes:
        columns: Names of the columns.
        rows: Rows with one value for each column.
    """

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Attributes:
        classes: Names of the classes 0, 1, ...
        counts: [K][K]; rows are labels, columns are predictions.
    """

    classes: list[str]
    counts: list[list[int]]


@dataclass(frozen=True)
class Overlay:
    """An image with masks of the classes of its pixels.

    Attributes:
        image: [H, W, 3].
        masks: Name -> mask [H, W], 0..K-1, or 255 for unlabelled pixels.
        names: Names of the classes.
    """

    image: Pixels
    masks: dict[str, Pixels]
    names: list[str]


@dataclass(frozen=True)
class Picture:
    """A picture of a test sample.

    Attributes:
        content: Bytes of the file, PNG or WebP.
        caption: Caption of the picture.
        overlay: The same image with its masks as layers, for samples that have masks.
    """

    content: bytes
    caption: str
    overlay: Overlay | None = field(default=None)


Content = FinalMetrics | Table | Confusion | list[Picture] | Path


def confusion_rows(confusion: Confusion, most: int = 10_000) -> Table:
    """Return the cells of a confusion matrix as rows, limited to a number of cells.

    A matrix above the limit is reduced to its non-zero cells with the highest counts.

    Args:
        confusion: The matrix.
        most: Maximum number of cells.

    Returns:
        A table of label, prediction and count, in the order of the classes.
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
    """A Lightning logger that receives more than curves.

    Its methods are called on rank 0 only.
    """

    @abstractmethod
    def begin(self, config: dict[str, Any]) -> None:
        """Start a new run, or resume an earlier one.

        Args:
            config: The resolved and redacted config. The key `provenance` has commit, versions,
                hardware, seed and data.

        Raises:
            LoggerError: If the run cannot be started.
        """

    @abstractmethod
    def publish(self, name: str, content: Content) -> None:
        """Log a result of a finished run.

        Args:
            name: Name of the result, such as `test/classes`; for a file `plan`, `report` or
                `checkpoint`.
            content: Metrics, a table, a confusion matrix, pictures, or a file of the run folder.
        """

    @abstractmethod
    def close(self, code: int) -> None:
        """End the run, if it was started; an exit code other than 0 marks it as failed."""
