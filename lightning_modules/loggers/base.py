"""What every dashboard takes of a run, whichever it is: where it came from, its curves, and what came of it."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

UNLABELLED = 255


class LoggerError(ValueError):
    """A dashboard cannot take a run."""

    is_for_the_user = True


@dataclass(frozen=True)
class Origin:
    """What a run starts from. Nothing in it is secret: it is read from the run folder.

    Attributes:
        config: The resolved, redacted config.
        provenance: Commit, versions, hardware, seed and data.
        monitor: The figure that chooses the best epoch.
    """

    config: dict[str, Any]
    provenance: dict[str, Any]
    monitor: str

    @property
    def commit(self) -> str | None:
        """Of the code, where it is known."""
        commit: str | None = self.provenance.get("git", {}).get("commit")
        return commit


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
class Overlay:
    """An image and what its pixels were taken for.

    Attributes:
        image: [H, W, 3].
        masks: Name -> label map [H, W], 0..K-1, or 255 where nothing is labelled.
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
        overlay: The same with label maps as layers, where samples have them.
    """

    content: bytes
    caption: str
    overlay: Overlay | None = field(default=None)


def require(module: str, option: str, extra: str) -> None:
    """Raise `LoggerError` that names the extra to be installed where a module is missing."""
    if importlib.util.find_spec(module) is None:
        msg = f"logger={option} needs the package {module}, which is not installed: pip install -e '.[{extra}]'"
        raise LoggerError(msg)


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def confusion_rows(classes: Sequence[str], counts: Sequence[Sequence[int]], most: int = 10_000) -> Table:
    """The cells of a confusion matrix in which something is, at most so many, the fullest.

    Args:
        classes: Names of class 0, 1, ...
        counts: Row the label, column the prediction.
        most: Cells that a dashboard can show.

    Returns:
        label, prediction and count; in the order of the classes.
    """
    cells = [(i, j, int(count)) for i, row in enumerate(counts) for j, count in enumerate(row)]
    if len(cells) > most:
        cells = sorted(sorted((c for c in cells if c[2]), key=lambda cell: -cell[2])[:most])
    return Table(["label", "prediction", "count"], [[classes[i], classes[j], count] for i, j, count in cells])


class Dashboard(ABC):
    """A logger of Lightning's that takes more than curves; stands before Lightning's own class among the bases.

    All of it is called on the first process only.
    """

    def log_hyperparams(self, *_: Any, **__: Any) -> None:  # noqa: ANN401, B027 - Lightning's loggers differ; not abstract
        """Nothing: Lightning would log a task's arguments as they are, and `begin` has logged the redacted config."""

    @abstractmethod
    def begin(self, origin: Origin, run_id: str | None) -> str | None:
        """Begin the run, or go on with an earlier one.

        Args:
            origin: What the run starts from.
            run_id: What `begin` gave when the run was begun, where it goes on.

        Returns:
            What finds the run again; None where the run folder alone does.

        Raises:
            LoggerError: If there is no beginning it.
        """

    @abstractmethod
    def publish_figures(self, figures: dict[str, float], chosen: dict[str, float]) -> None:
        """Take what the run came to.

        Args:
            figures: `test/...` of the test split, `best/...` of the best epoch, parameters and seconds.
            chosen: `val/...` of the best epoch, where a dashboard would show the last one's.
        """

    @abstractmethod
    def publish_table(self, name: str, table: Table) -> None:
        """Take a table."""

    @abstractmethod
    def publish_confusion(self, name: str, classes: list[str], counts: list[list[int]]) -> None:
        """Take a confusion matrix, row the label."""

    @abstractmethod
    def publish_pictures(self, name: str, pictures: list[Picture]) -> None:
        """Take pictures."""

    @abstractmethod
    def publish_file(self, name: str, path: Path, kind: str) -> None:
        """Take a file of the run folder; kind is `model`, `report` or `record`."""

    @abstractmethod
    def close(self, code: int) -> None:
        """End the run; a code other than 0 marks it as failed. Without a beginning it does nothing."""
