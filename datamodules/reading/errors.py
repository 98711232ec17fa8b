"""What can be wrong with data, as one line that says where and what to do."""

import logging
from dataclasses import dataclass
from typing import Literal

from run_folders.errors import UserError

log = logging.getLogger(__name__)


class DataError(UserError, ValueError):
    """The data cannot be used as it is."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        split: train, val or test; empty where there are no splits.
        file: Name of the file.
        row: Number of the data row, from 1; the header is not counted. None for a file by itself.
        line: Number of the line in the file, from 1; None in files without lines.
        reason: What is wrong with it.
    """

    split: str
    file: str
    row: int | None
    line: int | None
    reason: str

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        line = "" if self.line is None else f" (line {self.line})"
        return f"{self.file}{row}{line}: {self.reason}"


LEAVE_OUT = "mend the file, or leave such rows out with data.on_bad_rows=skip"


def raise_bad_rows(bad: list[BadRow], shown: int = 10, advice: str = LEAVE_OUT) -> None:
    """Raise for the rows that cannot be used.

    Args:
        bad: The rows; none raises nothing.
        shown: How many are named.
        advice: What to do.

    Raises:
        DataError: With the first rows and the way round.
    """
    if not bad:
        return
    if len(bad) == 1:
        msg = f"{bad[0]}; {advice}"
        raise DataError(msg)
    lines = [f"{len(bad)} bad rows; {advice}", *(f"  {row}" for row in bad[:shown])]
    if len(bad) > shown:
        lines.append(f"  ... and {len(bad) - shown} more")
    raise DataError("\n".join(lines))


def leave_out(bad: list[BadRow], on_bad_rows: Literal["error", "skip"]) -> list[BadRow]:
    """Leave bad rows out, or raise `DataError` for them; returns the rows left out."""
    if on_bad_rows == "error":
        raise_bad_rows(bad)
    if bad:
        log.warning("%d bad rows were left out; they are listed in the run folder", len(bad))
    return bad
