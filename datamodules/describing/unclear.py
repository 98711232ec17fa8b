"""What is shown while the settings are not known: columns of tables, files of folders."""

from collections import Counter
from pathlib import Path, PurePosixPath

from datamodules.describing.columns import ColumnCounter
from datamodules.describing.sections import Cell, Section, columns_section
from datamodules.images.listing import Listing
from datamodules.inferring.tables import tables_of
from datamodules.reading.errors import BadRow
from datamodules.reading.formats import TableFormat
from datamodules.reading.progress import tracked
from datamodules.reading.tables import read_rows

_MOST_TABLES = 3
_MOST_FOLDERS = 20
_MOST_BAD = 5  # rows that are listed


def table_sections(path: Path, table_format: TableFormat) -> list[Section]:
    """Return the columns of a table, or of the first tables in a folder.

    Raises:
        DataError: If a table cannot be read.
    """
    names = [name for names in tables_of(path).values() for name in names]
    tables = [path] if path.is_file() else [path / name for name in names]
    found = []
    for table in tables[:_MOST_TABLES]:
        counters: dict[str, ColumnCounter] = {}
        rows = 0
        bad: list[BadRow] = []
        for row in tracked(read_rows(table, [], table_format=table_format), table.name):
            if isinstance(row, BadRow):
                bad.append(row)
                continue
            rows += 1
            for name, value in row.values.items():
                counters.setdefault(name, ColumnCounter(name)).add(value)
        columns = [counter.facts(rows) for counter in counters.values()]
        section = columns_section(f"{table.name} ({rows:,} rows)", columns, {})
        found.append(section)
        if bad:
            listed = [str(row) for row in bad[:_MOST_BAD]]
            rest = [f"and {len(bad) - _MOST_BAD:,} more"] if len(bad) > _MOST_BAD else []
            found.append(Section(f"Not readable ({len(bad):,})", notes=[*listed, *rest]))
    more = len(tables) - _MOST_TABLES
    return [*found, Section("Further tables", notes=[f"{more} more"])] if more > 0 else found


def folder_section(path: Path) -> list[Section]:
    """Return the number of files of each suffix in each folder; nothing for a file."""
    if path.is_file():
        return []
    counts: Counter[tuple[str, str]] = Counter()
    for file in Listing().walk(path):
        place = PurePosixPath(file.path)
        counts[place.parent.as_posix(), place.suffix.lower() or "none"] += 1
    rows: list[list[Cell]] = [[*key, n] for key, n in list(counts.items())[:_MOST_FOLDERS]]
    more = len(counts) - _MOST_FOLDERS
    notes = [f"and {more} more"] if more > 0 else []
    return [Section(f"Folders of {path.name}", ("folder", "suffix", "files"), rows, notes)]
