"""Nested mappings by dotted keys. Standard library only."""

from collections.abc import Iterator, Mapping
from typing import Any


def nodes(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every value in nested mappings, mappings included.

    Args:
        values: The mappings.
        prefix: What comes before each key, with its dot.

    Yields:
        A mapping before what is in it.
    """
    for key, value in values.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from nodes(value, f"{prefix}{key}.")


def leaves(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Dotted key -> value of every value in nested mappings that is no mapping.

    Example:
        `leaves({"a": {"b": 1, "c": [2]}})` returns `{"a.b": 1, "a.c": [2]}`.
    """
    return {key: value for key, value in nodes(values) if not isinstance(value, Mapping)}
