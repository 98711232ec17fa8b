"""The classes that a place of the config may name, and the schema of each."""

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from engine.config.composing.sources import PARTS
from engine.config.errors import ConfigError
from engine.config.objects import protocol_faults
from engine.config.places import PLACES, resolve_target
from engine.config.schemas.descriptions import constructor_arguments, sections
from engine.config.schemas.hints import UNIONS, Schema, any_of, or_unresolved, schema_of
from engine.config.signatures import OURS, classes_of_arguments, hints_of, parameters_of

Target = Callable[..., Any]


def targets_at(path: str, own: Sequence[str]) -> dict[str, Target]:
    """Return dotted name -> class or function, of all that a place may name.

    Args:
        path: The place's key in `PLACES`.
        own: Own packages whose classes are listed too.
    """
    place = PLACES[path]
    if place.exact:
        return {place.base: resolve_target(place.base, path)}
    found: dict[str, Target] = {}
    for name in (*place.modules, *(own if place.own_packages else ())):
        for module in _modules(name, inside=name.partition(".")[0] in (*OURS, *own)):
            for attribute in _public_names(module):
                dotted = f"{module.__name__}.{attribute}"
                target = _target(dotted, path)
                if target is not None:
                    found[dotted] = target
    return _shortest(found, (*OURS, *own))


def class_schema(target: Target, path: str, described: Mapping[str, str]) -> Schema:
    """Return the schema of a node that builds a class.

    Args:
        target: The class or function.
        path: The place's key in `PLACES`.
        described: Argument -> description.
    """
    place, parameters, hints = PLACES[path], parameters_of(target), hints_of(target)
    named = [
        name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    properties: dict[str, Any] = {
        name: _argument(f"{path}.{name}", hints.get(name, Any), described.get(name))
        for name in named
    }
    properties |= dict.fromkeys((*place.injected, *place.refused), False)
    return {
        "properties": {"defaults": {}, "_target_": {}, **properties},
        "additionalProperties": len(named) < len(parameters),
    }


def required_keys(target: Target, path: str) -> list[str]:
    """Return the keys without which a class cannot be built, sorted."""
    return sorted(
        name
        for name, parameter in parameters_of(target).items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name not in PLACES[path].injected
    )


def descriptions(target: Target, packages: Sequence[str]) -> dict[str, str]:
    """Return argument -> description, from docstrings of some packages only."""
    if isinstance(target, type):
        classes = classes_of_arguments(target)
        return constructor_arguments([cls for cls in classes if _package(cls) in packages])
    return sections(inspect.getdoc(target) or "", "Args") if _package(target) in packages else {}


def _package(target: Target) -> str:
    return target.__module__.partition(".")[0]


def _modules(name: str, *, inside: bool) -> Iterator[ModuleType]:
    """Yield a module, and all public modules inside of it."""
    try:
        module = importlib.import_module(name)
    except ImportError:  # a module of an own package that needs what is not installed
        return
    yield module
    if inside and hasattr(module, "__path__"):
        for found in pkgutil.iter_modules(module.__path__, f"{name}."):
            if not found.name.rpartition(".")[2].startswith("_"):
                yield from _modules(found.name, inside=True)


def _public_names(module: ModuleType) -> Iterator[str]:
    """Yield the names that a module defines, or that a package offers."""
    for name, value in vars(module).items():
        defined = getattr(value, "__module__", None) == module.__name__
        if not name.startswith("_") and (defined or hasattr(module, "__path__")):
            yield name


def _target(dotted: str, path: str) -> Target | None:
    """Return what a name names; None if its place does not expect it."""
    path = path.replace("*", "name")
    try:
        target: Target = resolve_target(dotted, path)
    except ConfigError:
        return None
    return None if any(True for _ in protocol_faults(target, {}, path)) else target


def _shortest(found: dict[str, Target], packages: tuple[str, ...]) -> dict[str, Target]:
    """Return the shortest name of each class of some packages, and all names of other classes."""
    kept: dict[Any, str] = {}
    for name, target in sorted(found.items(), key=lambda item: (len(item[0]), item[0])):
        kept.setdefault(target if name.partition(".")[0] in packages else name, name)
    return {name: found[name] for name in sorted(kept.values())}


def _argument(path: str, hint: Any, description: str | None) -> Schema:  # noqa: ANN401 - any annotation
    schema = _at_place(path, hint) if path in PLACES else schema_of(hint)
    return or_unresolved(schema, description)


def _at_place(path: str, hint: Any) -> Schema:  # noqa: ANN401 - any annotation
    """Return the schema of an argument that is an object, or may be one."""
    node = {"$ref": f"#/definitions/{path}"}
    if path.removeprefix("model.") in PARTS:
        return node
    members = typing.get_args(hint) if typing.get_origin(hint) in UNIONS else (hint,)
    values = any_of([schema for member in members if (schema := schema_of(member))])
    return {"if": {"type": "object", "required": ["_target_"]}, "then": node, "else": values}
