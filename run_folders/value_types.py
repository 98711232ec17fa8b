"""Check values of JSON and YAML files against types. Standard library only."""

from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

OR_EMPTY = "or empty"  # Annotated[X, OR_EMPTY] also allows an empty mapping

_MOST = 2**53  # larger whole numbers have no exact float
LARGEST = 1e100  # squares and sums of larger numbers could overflow
_SHOWN = 60  # characters of a wrong value in a message
_NOUNS: dict[Any, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number of 0 or more",
    float: f"a number of at most {LARGEST:g}",
    NoneType: "null",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}


def type_fault(value: Any, expected: Any, name: str = "") -> str:  # noqa: ANN401 - any value
    """Return what is wrong with a value, or an empty string.

    Args:
        value: The value.
        expected: Its type: `str`, `bool`, `int` (0 to 2**53), `float` (finite, or a whole number),
            `list[X]`, `tuple[X, X]` (a list of this length), `dict[str, X]`, a `TypedDict` (other
            keys are allowed), a union of such types, `Any`, or one of these with `OR_EMPTY`.
        name: Its dotted key; empty for the content of a file.

    Example:
        `type_fault({"n": "x"}, dict[str, int])` returns
        `n is 'x', where a whole number of 0 or more is needed`.
    """
    if expected is Any:
        return ""
    kind, arguments = get_origin(expected) or expected, get_args(expected)
    if kind is NotRequired:
        return type_fault(value, arguments[0], name)
    if kind is Annotated:
        empty = OR_EMPTY in arguments and value == {}
        return "" if empty else type_fault(value, arguments[0], name)
    if kind in (Union, UnionType):
        return _union_fault(value, arguments, name)
    if is_typeddict(expected):
        kind = dict
    if not _is_of(value, kind):
        return f"{name or 'its content'} is {_shown(value)}, where {_NOUNS[kind]} is needed"
    if (is_typeddict(expected) or arguments[:1] == (str,)) and kind is dict:
        other = next((key for key in value if not isinstance(key, str)), None)
        if other is not None:
            return f"{name or 'its content'} has the key {_shown(other)}, where a text is needed"
    if is_typeddict(expected):
        return _keys_fault(value, expected, name)
    if kind is tuple and len(value) != len(arguments):
        return f"{name or 'its content'} has {len(value)} values in place of {len(arguments)}"
    if not arguments:
        return ""
    entries = value.items() if kind is dict else enumerate(value)
    faults = (type_fault(each, arguments[-1], _joined(name, key)) for key, each in entries)
    return next(filter(None, faults), "")


def _union_fault(value: Any, options: tuple[Any, ...], name: str) -> str:  # noqa: ANN401
    """Return the fault for the first option that is not None."""
    if any(not type_fault(value, option, name) for option in options):
        return ""
    return type_fault(value, next(o for o in options if o is not NoneType), name)


def _keys_fault(value: dict[str, Any], expected: Any, name: str) -> str:  # noqa: ANN401
    for key, inner in get_type_hints(expected, include_extras=True).items():
        if key in value:
            fault = type_fault(value[key], inner, _joined(name, key))
        else:
            fault = f"it lacks {_joined(name, key)}" if key in expected.__required_keys__ else ""
        if fault:
            return fault
    return ""


def _is_of(value: Any, kind: Any) -> bool:  # noqa: ANN401
    if kind is int:
        return type(value) is int and 0 <= value <= _MOST
    if kind is float:
        return type(value) in (int, float) and abs(value) <= LARGEST  # false for NaN
    if kind is tuple:
        return isinstance(value, list | tuple)
    return isinstance(value, kind)


def _joined(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _shown(value: Any) -> str:  # noqa: ANN401
    """Return a value for a message; of a list or mapping only its kind."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    text = repr(value) if not isinstance(value, int) or abs(value) <= _MOST else "a huge number"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
