"""Writes the page of the Python reference: the public names of the package `thaw`."""

from pathlib import Path

import thaw

_HEAD = """# Python

`import thaw` imports nothing heavy; each name is imported when it is first used. The page lists all
public names.
"""
_FIRST = ("train", "Run", "compare")


def write_page(page: Path) -> None:
    """Write a page that tells mkdocstrings to show the docstring of each public name."""
    others = sorted(set(thaw.__all__) - set(_FIRST), key=str.lower)
    entries = [_HEAD, *(_entry(name) for name in (*_FIRST, *others))]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(entries), encoding="utf-8")


def _entry(name: str) -> str:
    """Name the module that defines an object, because mkdocstrings does not import `thaw`."""
    found = getattr(thaw, name)
    return f"""::: {found.__module__}.{found.__qualname__}
    options:
      heading: thaw.{name}
      toc_label: {name}
"""
