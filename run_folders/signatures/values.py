"""Check values against annotations: their types, and the bounds in `Annotated`."""

import math
import operator
import os
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, NotRequired, Required

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from run_folders.errors import nearest

Fault = tuple[str, str]

_UNIONS = (typing.Union, types.UnionType)
# Bound -> its attribute, the comparison with a value, and its text.
_BOUNDS: dict[type, tuple[str, Callable[[Any, Any], bool], str]] = {
    Ge: ("ge", operator.ge, "at least"),
    Gt: ("gt", operator.gt, "above"),
    Le: ("le", operator.le, "at most"),
    Lt: ("lt", operator.lt, "below"),
}


def value_faults(value: object, hint: Any, path: str) -> Iterator[Fault]:  # noqa: ANN401 - any annotation
    """Check a value against its annotation, as far as that describes plain values.

    Args:
        value: The value.
        hint: The annotation.
        path: The name of the value.

    Yields:
        Name and fault; for a mapping that a `TypedDict` describes, the names of its keys.
    """
    members = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    mappings = [member for member in members if typing.is_typeddict(member)]
    if isinstance(value, dict) and mappings:
        yield from _mapping_faults(value, mappings[0], path)
    elif all(_fits(value, member) is False for member in members):
        named = (member for member in members if typing.get_origin(member) is not os.PathLike)
        wanted = " or ".join(map(_name, named))
        texts = any(typing.get_args(member) == (str,) for member in members)
        quote = texts and isinstance(value, list) and any(not isinstance(v, str) for v in value)
        hint = "; put items such as no, yes or 1 into quotes" if quote else ""
        yield path, f"received {value!r}; {wanted} is needed{hint}"
    else:
        yield from _range_faults(value, hint, path)


def _range_faults(value: object, hint: Any, path: str) -> Iterator[Fault]:  # noqa: ANN401 - any annotation
    """Check a number, or each number of a list, against the bounds in its annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        for member in arguments:
            if _fits(value, member) is not False:
                yield from _range_faults(value, member, path)
    elif origin in (list, Sequence) and isinstance(value, list):
        for item in value:
            yield from _range_faults(item, arguments[0], path)
    elif origin is Annotated and isinstance(value, int | float):
        metadata = [
            m
            for group in arguments[1:]
            for m in (group if isinstance(group, GroupedMetadata) else (group,))
        ]
        bounds = {type(m): getattr(m, _BOUNDS[type(m)][0]) for m in metadata if type(m) in _BOUNDS}
        if not all(_BOUNDS[kind][1](value, limit) for kind, limit in bounds.items()):
            yield path, f"received {value!r}; {_range(bounds)} is needed"
        elif bounds and not math.isfinite(value):
            yield path, f"received {value!r}; a finite number is needed"


def _range(bounds: dict[type, Any]) -> str:
    if bounds.keys() == {Ge, Le}:
        return f"{bounds[Ge]} to {bounds[Le]}"
    return " and ".join(f"{_BOUNDS[kind][2]} {limit}" for kind, limit in bounds.items())


def _mapping_faults(value: dict[str, Any], mapping: Any, path: str) -> Iterator[Fault]:  # noqa: ANN401 - a TypedDict
    known = typing.get_type_hints(mapping, include_extras=True)
    for key in value:
        if key not in known:
            yield f"{path}.{key}", f"unknown key; {nearest(str(key), list(known))}"
            continue
        hint = known[key]
        if typing.get_origin(hint) in (NotRequired, Required):
            hint = typing.get_args(hint)[0]
        yield from value_faults(value[key], hint, f"{path}.{key}")
    for key in sorted(mapping.__required_keys__ - value.keys()):
        yield f"{path}.{key}", "is missing"


def _fits(value: object, hint: Any) -> bool | None:  # noqa: ANN401 - any annotation
    """Return whether a value fits; None if the annotation does not describe plain values."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _fits(value, typing.get_args(hint)[0])
    if origin is Literal:
        return value in typing.get_args(hint)
    if hint in (type(None), None):
        return value is None
    plain = origin or hint
    if plain is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if plain is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if plain in (list, Sequence) and isinstance(value, list):
        return all(
            _fits(item, kind) is not False for kind in typing.get_args(hint)[:1] for item in value
        )
    if plain in (bool, str, list, dict, os.PathLike):
        return isinstance(value, plain)
    return False if typing.is_typeddict(hint) else None


def _name(hint: Any) -> str:  # noqa: ANN401 - any annotation
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _name(arguments[0])
    if origin in (list, Sequence):
        return f"list[{_name(arguments[0])}]"
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in arguments)
    if hint is type(None):
        return "null"
    if typing.is_typeddict(hint):
        return "a mapping"
    return str(hint) if origin else str(getattr(hint, "__name__", hint))
