"""Reads a config file with the comments of its keys."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = re.compile(r"# @package (\S+)")
# Lines for tools, not for readers.
_FOR_TOOLS = ("# @package", "# yaml-language-server")


@dataclass(frozen=True)
class Key:
    """A key of a config file.

    Attributes:
        path: Dotted key in the composed config.
        value: The value as it is written.
        comment: The comment above the key, or behind its value.
    """

    path: str
    value: str
    comment: str


@dataclass
class ConfigFile:
    """A config file.

    Attributes:
        about: The comment at its top.
        body: Its text without that comment.
        starts_from: The options of its group that it starts from.
        keys: Its keys, without those that name a class and without groups of keys.
        targets: Dotted key of a node -> the class or function that it names.
    """

    about: str
    body: str
    starts_from: list[str]
    keys: list[Key] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)


def read_config(path: Path, group: str) -> ConfigFile:
    """Read a config file.

    Args:
        path: The YAML file.
        group: Its group; empty for the file at the top.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    package = _PACKAGE.search(text)
    place = package[1] if package else group
    start = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    top = [line for line in lines[:start] if not line.startswith(_FOR_TOOLS)]
    root = yaml.compose(text)
    content: dict[str, Any] = yaml.safe_load(text) or {}
    file = ConfigFile(
        about=_words(top),
        body="".join(f"{line}\n" for line in lines[start:]),
        starts_from=list(_starts_from(content.get("defaults") or [])),
    )
    prefix = "" if place in ("", "_global_") else f"{place}."
    if isinstance(root, yaml.MappingNode):
        _collect(root, prefix, _Comments(lines, start), text, file)
    return file


def _words(lines: list[str]) -> str:
    return " ".join(line.strip().removeprefix("#").strip() for line in lines).strip()


def _starts_from(defaults: list[Any]) -> Iterator[str]:
    """Yield the files of the same group in a defaults list."""
    for entry in defaults:
        if isinstance(entry, str) and entry != "_self_":
            yield entry.partition("@")[0]


class _Comments:
    """Finds the comment of a key by the number of its line."""

    def __init__(self, lines: list[str], start: int) -> None:
        self.lines = lines
        self.start = start

    def of(self, node: yaml.Node, value: yaml.Node) -> str:
        """Return the comment above a key or behind its value."""
        line: int = node.start_mark.line
        above: list[str] = []
        while line - 1 >= self.start and self.lines[line - 1].strip().startswith("#"):
            line -= 1
            above.insert(0, self.lines[line])
        behind = self.lines[value.end_mark.line][value.end_mark.column :].strip()
        return _words([*above, behind] if behind.startswith("#") else above)


def _collect(
    node: yaml.MappingNode, prefix: str, comments: _Comments, text: str, file: ConfigFile
) -> None:
    """Add the keys of a node, and of the nodes below it, to a file."""
    for name, value in node.value:
        path = f"{prefix}{name.value}"
        if name.value == "_target_":
            file.targets[prefix.rstrip(".")] = value.value
        elif isinstance(value, yaml.MappingNode) and not value.flow_style:
            if comment := comments.of(name, value.value[0][0] if value.value else value):
                file.keys.append(Key(path, "...", comment))
            _collect(value, f"{path}.", comments, text, file)
        elif name.value != "defaults":
            written = text[value.start_mark.index : value.end_mark.index]
            file.keys.append(Key(path, " ".join(written.split()), comments.of(name, value)))
