"""What was found in the data for a setting that is left open."""

from typing import Any, NamedTuple


class Finding(NamedTuple):
    """A setting that was inferred from the data.

    Attributes:
        key: The argument of the datamodule; a dotted key for a value of a mapping, such as
            `files.train`.
        value: Its value, of plain types as in YAML.
        why: Where it was found, for example "the folders in train".
    """

    key: str
    value: Any
    why: str
