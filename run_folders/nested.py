"""Access to nested mappings by dotted keys. Standard library only."""

from collections.abc import Iterator, Mapping
from typing import Any


def nodes(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of every entry in nested mappings.

    Args:
        values: The mappings.
        prefix: Text before each key, including the trailing dot.

    Yields:
        Pairs of key and value. Mappings are included, each before its own entries.
    """
    for key, value in values.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from nodes(value, f"{prefix}{key}.")


def delete(values: dict[str, Any], path: str) -> None:
    """Delete the entry at a dotted key, if there is one."""
    *parents, last = path.split(".")
    node: Any = values
    for name in parents:
        node = node.get(name) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(last, None)


def leaves(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return dotted key -> value for every value in nested mappings that is not a mapping.

    Example:
        `leaves({"a": {"b": 1, "c": [2]}})` returns `{"a.b": 1, "a.c": [2]}`.
    """
    return {key: value for key, value in nodes(values) if not isinstance(value, Mapping)}
