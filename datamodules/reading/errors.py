"""Errors of data: one line that states the place, the reason and the next step."""

import logging
from dataclasses import dataclass
from typing import Literal

from run_folders.errors import UserError

log = logging.getLogger(__name__)

# Reasons of bad rows.
EMPTY_LINE = "the line is empty"
MARK = "begins with a byte order mark, as where files were joined; remove it"


class DataError(UserError, ValueError):
    """The data cannot be used as it is."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        split: train, val or test; empty if there are no splits.
        file: Name of the file.
        row: Number of the data row, from 1, without the header. None if the file is one sample.
        line: Number of the line in the file, from 1; None in files without lines.
        reason: Why it cannot be used.
    """

    split: str
    file: str
    row: int | None
    line: int | None
    reason: str

    @property
    def number(self) -> int:
        """Number of the data row, from 1; 0 if the file is one sample."""
        return self.row or 0

    def as_text(self) -> dict[str, str]:
        """Return the row of skipped_rows.csv."""
        return {
            "split": self.split,
            "file": self.file,
            "row": str(self.row or ""),
            "line": str(self.line or ""),
            "reason": self.reason,
        }

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        line = "" if self.line is None else f" (line {self.line})"
        return f"{self.file}{row}{line}: {self.reason}"


BAD_ROWS_ADVICE = "fix the file, or leave such rows out with data.on_bad_rows=skip"


def raise_bad_rows(bad: list[BadRow], shown: int = 10, advice: str = BAD_ROWS_ADVICE) -> None:
    """Raise an error that lists the rows that cannot be used.

    Args:
        bad: The rows; if empty, nothing is raised.
        shown: Largest number of rows that are listed.
        advice: Next step for the user.

    Raises:
        DataError: If there are bad rows.
    """
    if not bad:
        return
    if len(bad) == 1:
        msg = f"{bad[0]}; {advice}"
        raise DataError(msg)
    more = [f"... and {len(bad) - shown} more"] if len(bad) > shown else []
    msg = f"{len(bad)} bad rows; {advice}"
    raise DataError(msg, *bad[:shown], *more)


def check_count(file: str, rows: int, used: int, left_out: int) -> None:
    """Raise `RuntimeError` if a row is neither used nor reported: a bug in Thaw."""
    if used + left_out != rows:
        msg = f"{file} has {rows} rows, but {used} were used and {left_out} reported"
        raise RuntimeError(msg)


def leave_out(
    bad: list[BadRow],
    on_bad_rows: Literal["error", "skip"],
    advice: str = BAD_ROWS_ADVICE,
    shown: int = 3,
) -> list[BadRow]:
    """Return the bad rows, to be left out, or raise `DataError` for them.

    Args:
        bad: The rows.
        on_bad_rows: Raise an error, or warn of the rows.
        advice: Next step for the user, in the error.
        shown: Largest number of rows that the warning names.
    """
    if on_bad_rows == "error":
        raise_bad_rows(bad, advice=advice)
    if bad:
        count = "1 bad row was" if len(bad) == 1 else f"{len(bad)} bad rows were"
        more = f"; and {len(bad) - shown} more" if len(bad) > shown else ""
        log.warning("%s left out: %s%s", count, "; ".join(map(str, bad[:shown])), more)
    return bad
