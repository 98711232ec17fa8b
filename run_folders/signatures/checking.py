"""Check the arguments of a constructor that a Python program calls, as those of a config."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from run_folders.errors import UserError
from run_folders.signatures.hints import hints_of
from run_folders.signatures.values import value_faults


class ArgumentError(UserError, ValueError):
    """An argument with a wrong type, or out of its range."""


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Check arguments against the annotations of a class or function.

    Args:
        target: The class or function.
        arguments: Name -> value. Names without an annotation are not checked.

    Returns:
        The arguments that the target has.

    Raises:
        ArgumentError: If a value has another type, or is out of range.
    """
    hints, name = hints_of(target), getattr(target, "__name__", str(target))
    for key, value in arguments.items():
        for path, fault in value_faults(value, hints.get(key, Any), key):
            msg = f"{name}: {path}: {fault}"
            raise ArgumentError(msg)
    return {key: arguments[key] for key in inspect.signature(target).parameters if key in arguments}
