"""What was found in the data for a setting that is left open."""

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
    """

    key: str
    value: Any
    why: str


def completed(settings: Mapping[str, Any], findings: Iterable[Finding]) -> dict[str, Any]:
    """Return the settings with the values of the findings."""
    values = dict(settings)
    for key, value, _ in findings:
        outer, _, inner = key.partition(".")
        values[outer] = {**(values.get(outer) or {}), inner: value} if inner else value
    return values
