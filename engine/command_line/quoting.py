"""Quoting of values for the command line of Hydra. No other module quotes a value."""

import re
import shlex
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from engine.config.composing.composition import escaped

_KEY = re.compile(r"[+~]{0,2}[\w/@.$:-]+", re.ASCII)
_NESTED = re.compile(r"[\[{(]")
_PLAIN_PATH = re.compile(r"[\w./+-]*/[\w./+-]*", re.ASCII)


def quoted(value: object) -> str:
    """Return a value as Hydra must get it, so that it reads the same text; plain paths unquoted."""
    text = str(value)
    if _PLAIN_PATH.fullmatch(text):
        return text
    return QuotedString(escaped(text), Quote.double).with_quotes()


def unquoted(text: str) -> str:
    """Return the value that Hydra reads in quotes; a text that is not in quotes stays."""
    if len(text) < 2 or text[0] not in "'\"" or text[0] != text[-1]:  # noqa: PLR2004
        return text
    return str(OverridesParser.create().parse_override(f"value={text}").value())


def parses(override: str) -> bool:
    """Return whether Hydra can parse an override."""
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def unclosed(override: str) -> bool:
    """Return whether an override is the beginning of a list or mapping."""
    value = override.partition("=")[2]
    pairs = (("[", "]"), ("{", "}"))
    return value[:1] in ("[", "{") and any(
        value.count(left) > value.count(right) for left, right in pairs
    )


def with_quotes(override: str, *, sweeps: bool) -> str | None:
    """Return an override that Hydra cannot parse with quotes, ready for a shell.

    The items of lists and mappings are quoted one by one.

    Args:
        override: The override.
        sweeps: Whether commas separate the values of a sweep.

    Returns:
        The override; None if quotes do not help.
    """
    key, equals, value = override.partition("=")
    if not equals or not _KEY.fullmatch(key):
        return None
    items = value.split(",") if sweeps and not _NESTED.search(value) else [value]
    suggested = f"{key}={','.join(map(_items_quoted, items))}"
    return shlex.quote(suggested) if parses(suggested) else None


def _items_quoted(value: str) -> str:
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        items = [_items_quoted(item) for item in text[1:-1].split(",")]
        return f"[{','.join(items)}]"
    if text.startswith("{") and text.endswith("}"):
        pairs = [item.partition(":") for item in text[1:-1].split(",")]
        items = [f"{key.strip()}: {_items_quoted(item)}" for key, _, item in pairs]
        return f"{{{', '.join(items)}}}"
    return text if parses(f"value={text}") else quoted(text)


def settled(overrides: Iterable[str]) -> list[str]:
    """Return overrides without those that a later one of the same key replaces.

    Overrides with mappings stay, because Hydra merges them.
    """
    kept: dict[object, str] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        merged = not override.is_sweep_override() and isinstance(override.value(), dict)
        key = (override.get_key_element(), len(kept) if merged else None)
        kept[key] = str(override.input_line)
    return list(kept.values())
