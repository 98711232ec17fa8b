"""What the YAML files under configs/ say, read without Hydra.

Composing with Hydra costs half a second of imports and grammar; the answers that a person waits for (`--help`, `--cfg job`,
a mistyped key) need a tenth of that. This module follows the part of Hydra's defaults lists that our files use:
`_self_`, siblings, `group: option`, `override /group: option` and `# @package _global_`. Whatever lies outside of it
raises `UnsupportedError`, and the caller leaves the question to Hydra. A test holds both compositions equal.
"""

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

COMMAND_LINE = "the command line"

# The floats that OmegaConf reads; YAML 1.1 takes 1e-4 for a string.
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)"
    r"|\.[0-9_]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$")
_MOST_SHOWN = 12
_PLAIN_VALUE = re.compile(r"^[\w\-./:@+%~]*$")


class UnsupportedError(Exception):
    """The files or overrides use a part of Hydra that only Hydra itself can answer for."""


class UnknownOptionError(ValueError):
    """A config group has no such option."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


class _Dumper(yaml.SafeDumper):
    pass


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


@dataclass(frozen=True)
class Override:
    """One override of the command line, as far as its key goes.

    Attributes:
        prefix: Empty, `+`, `++` or `~`.
        key: The dotted key or the group.
        value: The text behind `=`, or None where there is none.
    """

    prefix: str
    key: str
    value: str | None

    @classmethod
    def parse(cls, text: str) -> "Override":
        """Split an override; raises `UnsupportedError` for forms such as `group@package=option`."""
        match = re.match(r"^(\+\+|\+|~)?([\w./-]+)(?:=(.*))?$", text, re.DOTALL)
        if match is None:
            raise UnsupportedError(text)
        return cls(match[1] or "", match[2], match[3])

    def options(self) -> list[str]:
        """The plain words of the value, one for each job of a sweep."""
        words = (self.value or "").split(",")
        if not all(re.match(r"^[\w./-]*$", word) for word in words):
            raise UnsupportedError(self.value)
        return words

    def scalar(self) -> Any:  # noqa: ANN401 - a YAML scalar
        """The value as Hydra would read it, where it is a plain scalar."""
        text = self.value
        if text is None or not _PLAIN_VALUE.match(text):
            raise UnsupportedError(text)
        if text.lower() in ("null", "true", "false"):
            return {"null": None, "true": True, "false": False}[text.lower()]
        if _INT.match(text):
            return int(text)
        return float(text) if _FLOAT.match(text) else text


@dataclass
class Composition:
    """The composed config and where each key came from.

    Attributes:
        values: Nested dicts, interpolations left as text.
        origins: Dotted key -> the file that set it last.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def merge(self, body: dict[str, Any], origin: str, prefix: str = "") -> None:
        """Lay `body` over what is there, mapping by mapping."""
        node = self.values
        for part in filter(None, prefix.split(".")):
            node = node.setdefault(part, {})
        self._merge(node, body, origin, prefix)

    def _merge(self, node: dict[str, Any], body: dict[str, Any], origin: str, prefix: str) -> None:
        for key, value in body.items():
            path = f"{prefix}.{key}" if prefix else str(key)
            self.origins[path] = origin
            if isinstance(value, dict):
                if not isinstance(node.get(key), dict):
                    node[key] = {}
                self._merge(node[key], value, origin, path)
            else:
                node[key] = value

    def paths(self, node: dict[str, Any] | None = None, prefix: str = "") -> list[str]:
        """Every dotted key."""
        found = []
        for key, value in (self.values if node is None else node).items():
            found.append(f"{prefix}{key}")
            if isinstance(value, dict):
                found += self.paths(value, f"{prefix}{key}.")
        return found

    def to_yaml(self) -> str:
        """The text that `--cfg job` prints."""
        return yaml.dump(self.values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class ConfigFiles:
    """The folder of config files."""

    def __init__(self, root: Path, primary: str = "train") -> None:
        self.root = root
        self.primary = primary

    def groups(self) -> dict[str, list[str]]:
        """Group -> its options, for the help text and the checks."""
        folders = sorted(path for path in self.root.iterdir() if path.is_dir())
        return {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in folders}

    def compose(self, choices: dict[str, str], overrides: list[Override]) -> Composition:
        """Compose as Hydra would, without the `hydra` node.

        Args:
            choices: Group -> option from the command line.
            overrides: The other overrides, applied last.

        Returns:
            The composition.

        Raises:
            UnsupportedError: If only Hydra can tell.
            UnknownOptionError: If a group has no such option.
        """
        composition = Composition()
        for file, package, body in self._expand("", self.primary, dict(choices)):
            composition.merge(body, f"{self.root.name}/{file}", package)
        composition.values.pop("hydra", None)
        for override in overrides:
            if override.prefix == "~":
                raise UnsupportedError(override.key)
            *parents, leaf = override.key.split(".")
            composition.merge({leaf: override.scalar()}, COMMAND_LINE, ".".join(parents))
        return composition

    def _expand(self, group: str, option: str, choices: dict[str, str]) -> list[tuple[str, str, dict[str, Any]]]:
        file = f"{group}/{option}.yaml" if group else f"{option}.yaml"
        path = self.root / file
        if not path.is_file():
            raise UnknownOptionError(self.unknown_option(group, option))
        text = path.read_text(encoding="utf-8")
        body = yaml.load(text, Loader=_Loader) or {}  # noqa: S506 - a SafeLoader
        header = re.search(r"^#\s*@package\s+(\S+)", text, re.MULTILINE)
        if header and header[1] != "_global_":
            raise UnsupportedError(header[0])
        defaults = body.pop("defaults", [])
        for entry in defaults:
            if isinstance(entry, dict):
                (key, value), *_ = entry.items()
                if key.startswith("override /"):
                    choices.setdefault(key.removeprefix("override /"), value)
        own = (file, "" if header else group, body)
        # Hydra expands a list from its end, so that an experiment chooses before the groups it chooses for.
        parts = [self._entry(entry, group, own, choices) for entry in reversed(defaults)]
        if not any(entry == "_self_" for entry in defaults):
            parts.insert(0, [own])
        return [item for part in reversed(parts) for item in part]

    def _entry(
        self, entry: object, group: str, own: tuple[str, str, dict[str, Any]], choices: dict[str, str]
    ) -> list[tuple[str, str, dict[str, Any]]]:
        if entry == "_self_":
            return [own]
        if isinstance(entry, str):
            return self._expand(group, entry, choices)
        if not isinstance(entry, dict):
            raise UnsupportedError(entry)
        (key, value), *_ = entry.items()
        if key.startswith("override /") or key == "hydra":
            return []
        if group or not re.match(r"^\w+$", key):
            raise UnsupportedError(key)
        option = choices.get(key, value)
        return [] if option in (None, "null") else self._expand(key, option, choices)

    def unknown_option(self, group: str, option: str) -> str:
        """The one line about an option that does not exist."""
        options = self.groups().get(group, [])
        return f"{group}={option}: {self.root.name}/{group}/ has no '{option}'; {nearest(option, options)}"


def nearest(name: str, known: list[str], count: int = 3) -> str:
    """Name the known words nearest to a mistyped one, or all where none is near and they are few."""
    close = get_close_matches(name, known, n=count, cutoff=0.5)
    leaf = name.rsplit(".", 1)[-1]
    close += [path for path in dict.fromkeys(known) if path.rsplit(".", 1)[-1] == leaf and path not in close]
    if close:
        return "did you mean " + " or ".join(close[:count]) + "?"
    names = sorted(set(known))
    return f"known: {', '.join(names[:_MOST_SHOWN])}{', ...' if len(names) > _MOST_SHOWN else ''}"
