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


def value_at(values: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - any value of a mapping
    """Return the entry at a dotted key; None if there is none."""
    node: Any = values
    for name in path.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def delete(values: dict[str, Any], path: str) -> None:
    """Delete the entry at a dotted key, if there is one."""
    parent, _, last = path.rpartition(".")
    node = value_at(values, parent) if parent else values
    if isinstance(node, dict):
        node.pop(last, None)


def leaves(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return dotted key -> value for every value in nested mappings that is not a mapping.

    Example:
        `leaves({"a": {"b": 1, "c": [2]}})` returns `{"a.b": 1, "a.c": [2]}`.
    """
    return {key: value for key, value in nodes(values) if not isinstance(value, Mapping)}
