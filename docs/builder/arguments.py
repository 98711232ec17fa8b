"""The arguments of a class or function: type, range, default and meaning, for a reader."""

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import griffe
import yaml
from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from engine.config.signatures import parameters_of

_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", dict: "mapping"}
_BOUNDS = {Ge: ("ge", "from"), Gt: ("gt", "above"), Le: ("le", "to"), Lt: ("lt", "below")}


@dataclass(frozen=True)
class Argument:
    """An argument that a config may set.

    Attributes:
        name: Its name.
        kind: Its type and range, in words; empty if the annotation is no plain type.
        default: The default, as it is written in YAML; None if the argument is required.
        meaning: What the docstring says.
    """

    name: str
    kind: str
    default: str | None
    meaning: str


def arguments_of(target: Callable[..., Any]) -> Iterator[Argument]:
    """Yield the arguments of a class or function."""
    hints: dict[str, Any] = {}
    meanings: dict[str, str] = {}
    parts = reversed(target.__mro__[:-1]) if isinstance(target, type) else [target]
    for part in parts:
        call = vars(part).get("__init__") if isinstance(part, type) else part
        if call is not None:
            with suppress(NameError, TypeError):  # names that exist only for type checkers
                hints |= typing.get_type_hints(inspect.unwrap(call), include_extras=True)
            meanings |= _meanings(part) | _meanings(call)
    for name, parameter in parameters_of(target).items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        required = parameter.default is parameter.empty
        default = None if required else _as_yaml(parameter.default)
        yield Argument(name, in_words(hints.get(name)), default, meanings.get(name, ""))


def _meanings(documented: object) -> dict[str, str]:
    text = vars(documented).get("__doc__") if isinstance(documented, type) else documented.__doc__
    sections = griffe.Docstring(text or "").parse("google", warnings=False)
    return {
        item.name: " ".join(item.description.split())
        for section in sections
        if section.kind is griffe.DocstringSectionKind.parameters
        for item in section.value
    }


def _as_yaml(value: object) -> str:
    if not isinstance(value, bool | str | int | float | list | dict | None):
        return "..."
    written = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return written.removesuffix("\n").removesuffix("\n...")


def in_words(hint: Any) -> str:  # noqa: ANN401 - any annotation
    """Return an annotation in words; empty if it is no plain type."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        words = dict.fromkeys(in_words(member) for member in members)
        return " or ".join(words) if all(words) else ""
    if origin is Annotated:
        return f"{in_words(members[0])} {_bounds(members[1:])}".strip()
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in members)
    if origin is list:
        return f"list ({in_words(members[0])})"
    if hint is type(None):
        return "`null`"
    return "mapping" if typing.is_typeddict(hint) else _WORDS.get(origin or hint, "")


def _bounds(metadata: tuple[Any, ...]) -> str:
    single = [
        m for item in metadata for m in (item if isinstance(item, GroupedMetadata) else [item])
    ]
    known = [_BOUNDS[type(m)] + (m,) for m in single if type(m) in _BOUNDS]
    return " ".join(f"{word} {getattr(m, name)}" for name, word, m in known)
