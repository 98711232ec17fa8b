"""The arguments that a class or function takes, with their annotations."""

import inspect
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from run_folders.own_packages import own_packages

OURS = ("lightning_modules", "datamodules")


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
