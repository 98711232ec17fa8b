"""The lines that the page on troubleshooting quotes are those of the code."""

import ast
import re
from collections.abc import Iterator

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
PACKAGES = ("engine", "datamodules", "lightning_modules", "run_folders", "keras_bert", "thaw")
FEWEST = 10  # characters of a message's own text that identify it


def quoted_lines() -> list[str]:
    """Lines of the blocks of output."""
    blocks = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines()]


def messages() -> Iterator[list[str]]:
    """The texts of the code, each as its parts between the values that are put in."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    constants = [p.value for p in node.values if isinstance(p, ast.Constant)]
                    yield [value for value in constants if isinstance(value, str)]
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield re.split(r"%[\d.]*[sd]", node.value)  # as in messages of the log


def occurs(parts: list[str], line: str) -> bool:
    """Whether the parts stand in a line, one after the other."""
    if not all(part in line for part in parts):
        return False
    return re.search(".*?".join(map(re.escape, parts)), line) is not None


def test_quoted_lines_are_those_of_the_code() -> None:
    lines = quoted_lines()
    assert len(lines) > 60
    known = [parts for parts in messages() if sum(map(len, parts)) >= FEWEST]
    missing = [line for line in lines if not any(occurs(parts, line) for parts in known)]
    assert missing == []
