"""The tests that the pages name as proofs exist."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs" / "concepts").glob("*.md"))


@cache
def names_in(path: str) -> set[str]:
    return set(re.findall(r"^def (test_\w+)", (ROOT / path).read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_named_tests_exist(page: Path) -> None:
    file, found = "", 0
    for code in re.findall(r"`(tests/\S+\.py|test_\w+)`", page.read_text(encoding="utf-8")):
        if code.endswith(".py"):
            file = code
        else:
            assert code in names_in(file), f"{file} has no {code}"
            found += 1
    assert found >= 5
