"""Print a description on a terminal or into a file. Texts of the data are shown as they are."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datamodules.describing.base import Description
from datamodules.describing.sections import Cell, Section
from run_folders.errors import one_line


def print_description(
    description: Description,
    sections: Sequence[Section],
    remarks: Sequence[str],
    console: Console,
) -> None:
    """Print a description.

    Args:
        description: The description.
        sections: Its sections.
        remarks: What the readers said.
        console: Prints it.
    """
    path = description.request.path
    console.print(Text(f"{one_line(path)}: {description.what}", "bold"))
    for section in sections:
        _print_section(section, console)
    if remarks:
        _print_section(Section("Remarks", notes=[*dict.fromkeys(remarks)]), console)
    if description.findings:
        rows = [
            [f"data.{finding.key}", _shown(finding.shown or finding.value), finding.why]
            for finding in description.findings
            if finding.why
        ]
        _print_section(Section("Inferred settings", ("key", "value", "found in"), rows), console)


def print_lines(lines: Sequence[str], title: str, console: Console) -> None:
    """Print a title and lines that are not wrapped, so that they can be copied."""
    console.print(Text(f"\n{title}", "bold"))
    for line in lines:
        console.print(Text(f"  {one_line(line)}"), soft_wrap=True)


def _print_section(section: Section, console: Console) -> None:
    console.print(Text(f"\n{section.title}", "bold"))
    if section.rows:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for place, name in enumerate(section.header):
            cells = [row[place] for row in section.rows]
            right = all(
                isinstance(cell, int) or cell.endswith("%") or cell == "-" for cell in cells
            )
            table.add_column(
                Text(one_line(name)), justify="right" if right else "left", overflow="fold"
            )
        for row in section.rows:
            table.add_row(*map(_cell, row))
        console.print(table)
    for note in section.notes:
        console.print(Text(f"  {one_line(note)}"))


def _cell(value: Cell) -> Text:
    return Text(f"{value:,}" if isinstance(value, int) else one_line(value))


def _shown(value: object) -> str:
    if value is None:
        return "null"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
