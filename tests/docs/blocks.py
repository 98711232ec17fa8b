"""Checks one code block of a page: runs it, or compares it with a file of the repository.

The language decides: python is executed, yaml is parsed and composed where it is a config file, sh
is run command by command (`commands.py`), text is the output of a command. A block with
`title="FILE"` in its first line is written to that file, and later blocks of the page use it. A
block that cannot be run follows a line such as `<!--- skip: next "needs an account" -->`.
"""

import json
import re
import time
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest import SkipTest

import yaml
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import SkipParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from datamodules.masks.class_list import ClassList
from engine.config.composing.composition import compose_config
from tests.docs.commands import check_commands
from tests.docs.workplace import Workplace
from tests.processes import ROOT

_INFO = re.compile(r"[ \t]*(?P<info>[^\n]*)\n")
_TITLE = re.compile(r'title="([^"]+)"')
_SEARCH = """# @package _global_
defaults:
  - override /hydra/sweeper: optuna
"""
_EXCERPTS_OF = ("configs", "docs/examples", "scripts", "docs/thaw.sbatch")


class Page:
    """The code blocks of a page, in their order.

    Attributes:
        faults: One text for each block that failed.
        skipped: One line for each block that is marked as not run, with the reason.
        seconds: One line for each block that passed.
        checked: The number of blocks that passed.
    """

    def __init__(self, path: Path, workplace: Workplace) -> None:
        self.workplace = workplace
        self.name = path.as_posix().removeprefix(f"{ROOT.as_posix()}/")
        self.faults: list[str] = []
        self.skipped: list[str] = []
        self.seconds: list[str] = []
        self.checked = 0
        self._document = Document.parse(str(path), SkipParser(), self._blocks)
        self._python = PythonEvaluator()

    def check(self) -> None:
        """Check all blocks; fills the attributes."""
        for example in self._document.examples():
            before, began = self.checked, time.monotonic()
            place = f"{self.name}:{example.line}"
            try:
                example.evaluate()
            except SkipTest as reason:
                self.skipped.append(f"{place}: {reason}")
                continue
            except (Exception, SystemExit) as error:
                self.faults.append(f"{place}: {type(error).__name__}: {error}")
                continue
            self.seconds.append(f"{place}: {time.monotonic() - began:.1f} s")
            if "info" in example.region.lexemes and self.checked == before:
                self.faults.append(f"{place}: skipped without a reason")

    def _blocks(self, document: Document):  # noqa: ANN202 - an iterator of Sybil's regions
        for region in RawFencedCodeBlockLexer(_INFO)(document):
            region.parsed = region.lexemes["source"]
            region.evaluator = self._evaluate
            yield region

    def _evaluate(self, example: Example) -> None:
        info = example.region.lexemes["info"]
        language = info.split(" ")[0]
        if language not in CHECKS:
            msg = f"no known way to check a block of {language or 'no language'}"
            raise AssertionError(msg)
        if title := _TITLE.search(info):
            self.workplace.write(title[1], example.parsed)
        if language == "python":
            if not title and not _is_excerpt(example.parsed):
                with self.workplace.entered():
                    self._python(example)
        else:
            CHECKS[language](example.parsed, self.workplace, title[1] if title else "")
        self.checked += 1


def _check_yaml(text: str, workplace: Workplace, title: str) -> None:
    """Parse a block; compose a config file; read a class list."""
    content = yaml.safe_load(text)
    if title.startswith("configs/"):
        group, name = Path(title).parts[-2:]
        with workplace.entered():
            compose_config([f"{group}={Path(name).stem}"])
    elif "classes" in content:
        ClassList.from_plain(content, title)
    elif "hydra" in content:  # a search space
        workplace.write("configs/sweep/block.yaml", f"{_SEARCH}{text}")
        check_commands("python train.py -m sweep=block", workplace)
    elif not _is_excerpt(text):
        workplace.write("configs/experiment/block.yaml", f"# @package _global_\n{text}")
        check_commands("python train.py experiment=block plan=true", workplace)


def _check_nothing(text: str, workplace: Workplace, title: str) -> None:
    """The output of a command, or a file that later blocks use."""


def _parsed_by(parse: Callable[[str], object]) -> Callable[[str, Workplace, str], None]:
    def check(text: str, workplace: Workplace, title: str) -> None:
        parse(text)

    return check


CHECKS: dict[str, Callable[[str, Workplace, str], None]] = {
    "python": _check_nothing,
    "sh": lambda text, workplace, title: check_commands(text, workplace),
    "yaml": _check_yaml,
    "json": _parsed_by(json.loads),
    "toml": _parsed_by(tomllib.loads),
    "csv": _check_nothing,
    "text": _check_nothing,
}


@cache
def _sources() -> str:
    files = [
        path
        for place in _EXCERPTS_OF
        for path in ((ROOT / place).rglob("*") if (ROOT / place).is_dir() else [ROOT / place])
        if path.suffix in (".py", ".yaml", ".toml", ".sbatch")
    ]
    return _without_indents("\n".join(path.read_text(encoding="utf-8") for path in files))


def _is_excerpt(text: str) -> bool:
    """Whether a block is part of a file that other tests run."""
    return _without_indents(text) in _sources()


def _without_indents(text: str) -> str:
    """Return the lines of a text without indents, because a page may show a method alone."""
    return "\n".join(line.strip() for line in text.strip("\n").splitlines())
