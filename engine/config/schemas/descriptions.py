"""Descriptions of config keys: from docstrings, and from the comments of a YAML file."""

import inspect
import re
from pathlib import Path

_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:, \w+)*)(?: \([^)]*\))?:\s*(?P<text>.*)")
_KEY = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?:.*?\s#\s*(?P<comment>.*))?")


def sections(docstring: str, heading: str) -> dict[str, str]:
    """Return name -> text of a section of a docstring in Google style.

    Args:
        docstring: The docstring.
        heading: The section's heading, such as `Args`.
    """
    _, found, section = inspect.cleandoc(docstring).partition(f"{heading}:\n")
    described: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines() if found else ():
        if not line.startswith(" "):
            break
        entry = _ENTRY.fullmatch(line.strip()) if not line.startswith("     ") else None
        if entry:
            names = entry["names"].split(", ")
            described |= dict.fromkeys(names, entry["text"])
        else:
            described |= {name: f"{described[name]} {line.strip()}" for name in names}
    return described


def constructor_arguments(classes: list[type]) -> dict[str, str]:
    """Return argument -> description, for classes that pass their arguments to the next one.

    Args:
        classes: The class, and the bases whose arguments it takes.
    """
    merged: dict[str, str] = {}
    for cls in classes:
        initialiser = vars(cls).get("__init__")
        described = sections(inspect.getdoc(initialiser) or "", "Args")
        for name, text in described.items():
            if not text.startswith("See `"):  # a base describes it
                merged.setdefault(name, text)
    return merged


def comments(file: Path) -> dict[str, str]:
    """Return dotted key -> the comment above it, or on its line, in a YAML file of mappings."""
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    block: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("# yaml-language-server:"):
            continue
        if text.startswith("#"):
            block.append(text.lstrip("# "))
            continue
        key = _KEY.match(line)
        if key:
            indent = len(key["indent"])
            parents = [*(p for p in parents if p[0] < indent), (indent, key["key"])]
            comment = " ".join([*block, *filter(None, [key["comment"]])])
            if comment:
                found[".".join(name for _, name in parents)] = comment
        block = []
    return found
