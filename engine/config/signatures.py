"""Check keys and values of a config node against the signature of the class that it builds."""

import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any

from run_folders.errors import near_names, nearest
from run_folders.signatures.hints import OURS, classes_of_arguments, hints_of, parameters_of
from run_folders.signatures.values import Fault, value_faults

__all__ = [
    "OURS",
    "Fault",
    "classes_of_arguments",
    "hints_of",
    "parameters_of",
    "signature_faults",
]

_TYPO_SIMILARITY = 0.8


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
            yield from value_faults(value, hints[key], f"{path}.{key}")
