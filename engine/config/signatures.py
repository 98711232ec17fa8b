"""Check keys and values of a config node against the signature of the class that it builds."""

import inspect
import math
import operator
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, NotRequired, Required

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from run_folders.errors import near_names, nearest
from run_folders.own_packages import own_packages

Fault = tuple[str, str]

OURS = ("lightning_modules", "datamodules")
_TYPO_SIMILARITY = 0.8
_UNIONS = (typing.Union, types.UnionType)
# Bound -> its attribute, the comparison with a value, and its text.
_BOUNDS: dict[type, tuple[str, Callable[[Any, Any], bool], str]] = {
    Ge: ("ge", operator.ge, "at least"),
    Gt: ("gt", operator.gt, "above"),
    Le: ("le", operator.le, "at most"),
    Lt: ("lt", operator.lt, "below"),
}


def signature_faults(
    target: Callable[..., Any], node: dict[str, Any], path: str, injected: Collection[str] = ()
) -> Iterator[Fault]:
    """Check a node against the constructor of a class, or against a function.

    Args:
        target: The class or function.
        node: The node's keys and values.
        path: The node's dotted key.
        injected: Arguments that the engine passes, which the node need not have.

    Yields:
        Dotted key and fault: the key is unknown or missing, or its value has another type or range
        than the annotation.
    """
    parameters = parameters_of(target)
    arguments = {key: value for key, value in node.items() if not str(key).startswith("_")}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = [
        name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    settable = [name for name in named if name not in injected]
    for key in arguments:
        # A class with **kwargs accepts every key, but a key that is close to a named one is a typo.
        known = key in named or (
            open_ended and not near_names(str(key), named, cutoff=_TYPO_SIMILARITY)
        )
        if not known:
            yield (
                f"{path}.{key}",
                f"unknown key of {target.__name__}; {nearest(str(key), settable)}",
            )
    for name in named:
        needed = parameters[name].default is inspect.Parameter.empty and name not in injected
        if needed and name not in arguments:
            yield f"{path}.{name}", f"is needed by {target.__name__} and missing"
    hints = hints_of(target)
    for key, value in arguments.items():
        if key in hints and not (isinstance(value, dict) and "_target_" in value):
            yield from _value_faults(value, hints[key], f"{path}.{key}")


def classes_of_arguments(target: type) -> list[type]:
    """Return the classes whose constructors receive the keys of a config node.

    The constructors of our classes, and of those of own packages, pass their **kwargs to their base
    class.
    """
    passing = tuple(f"{package}." for package in (*OURS, *own_packages()))
    classes = [cls for cls in target.__mro__ if "__init__" in vars(cls)]
    for count, cls in enumerate(classes, start=1):
        has_kwargs = any(
            p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values()
        )
        if not (has_kwargs and f"{cls.__module__}.".startswith(passing)):
            return classes[:count]
    return classes


def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters that a config may set, by name."""
    if not isinstance(target, type):
        return inspect.signature(target).parameters
    merged: dict[str, inspect.Parameter] = {}
    classes = classes_of_arguments(target)
    for cls in classes:
        for name, parameter in inspect.signature(cls).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD or cls is classes[-1]:
                merged.setdefault(name, parameter)
    return merged


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the parameters that a config may set, by name."""
    if not isinstance(target, type):
        return typing.get_type_hints(target, include_extras=True)
    merged: dict[str, Any] = {}
    for cls in classes_of_arguments(target):
        initialiser: Callable[..., None] = inspect.unwrap(cls.__init__)  # type: ignore[misc]
        with suppress(NameError, TypeError):  # names that exist only for type checkers
            merged = {**typing.get_type_hints(initialiser, include_extras=True), **merged}
    return merged


def _value_faults(value: object, hint: Any, path: str) -> Iterator[Fault]:  # noqa: ANN401 - any annotation
    """Check a value against its annotation, as far as that describes plain values."""
    members = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    mappings = [member for member in members if typing.is_typeddict(member)]
    if isinstance(value, dict) and mappings:
        yield from _mapping_faults(value, mappings[0], path)
    elif all(_fits(value, member) is False for member in members):
        wanted = " or ".join(_name(member) for member in members)
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
    elif origin is list and isinstance(value, list):
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
        yield from _value_faults(value[key], hint, f"{path}.{key}")
    for key in mapping.__required_keys__ - value.keys():
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
    if plain is list and isinstance(value, list):
        return all(
            _fits(item, kind) is not False for kind in typing.get_args(hint)[:1] for item in value
        )
    if plain in (bool, str, list, dict):
        return isinstance(value, plain)
    return False if typing.is_typeddict(hint) else None


def _name(hint: Any) -> str:  # noqa: ANN401 - any annotation
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _name(arguments[0])
    if origin is list:
        return f"list[{_name(arguments[0])}]"
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in arguments)
    if hint is type(None):
        return "null"
    if typing.is_typeddict(hint):
        return "a mapping"
    return str(hint) if origin else str(getattr(hint, "__name__", hint))
