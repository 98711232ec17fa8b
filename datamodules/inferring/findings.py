"""What was found in the data for a setting that is left open."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """A setting that was inferred from the data.

    Attributes:
        key: The argument of the datamodule; a dotted key for a value of a mapping, such as
            `files.train`.
        value: Its value, of plain types as in YAML.
        why: Where it was found, for example "the folders in train"; empty for a value that is not
            worth a line of output.
        shown: What is printed in place of a long value.
    """

    key: str
    value: Any
    why: str
    shown: str = ""


def with_defaults(target: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, with the defaults of a class where they have no value for a key.

    Args:
        target: A datamodule; the defaults of its constructor are in force, then those of its bases.
        settings: Arguments of the constructor.
    """
    values: dict[str, Any] = {}
    for cls in reversed(target.__mro__):
        if "__init__" not in vars(cls):
            continue
        for name, parameter in inspect.signature(cls).parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                values[name] = parameter.default
    return {**values, **settings}


def with_findings(settings: Mapping[str, Any], findings: Iterable[Finding]) -> dict[str, Any]:
    """Return the settings with the inferred values."""
    values = dict(settings)
    for finding in findings:
        key, _, inner = finding.key.partition(".")
        values[key] = {**values[key], inner: finding.value} if inner else finding.value
    return values
