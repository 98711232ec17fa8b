"""How the labels of a row are read: one class, several labels, or what an own package reads."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from unicodedata import normalize

from datamodules.reading.splits import stratified_split
from run_folders.errors import near_names, shortened

_YES, _NO = {"1", "1.0", "true"}, {"0", "0.0", "false"}
_WHOLE_NUMBER = re.compile(r"(-?\d+)\.0*")  # written as a number with a fraction
_PRESENT, _ABSENT = 1.0, 0.0  # one object each, also for millions of labels
LabelMap = Mapping[str, str]  # value in the column -> name of a class or label
SEPARATOR = ";"  # between predicted labels, unless the data have a separator


class LabelReader(ABC):
    """Reads the label of a row, and divides samples by their labels.

    A label is an int (a class), a float (a number), or a tuple of floats. The batch has them as a
    tensor [B] int64, [B] float32 or [B, K] float32.
    """

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """The columns that are read."""

    @abstractmethod
    def read(self, values: Mapping[str, Any]) -> tuple[Any, str]:
        """Return the label of a row and an empty string, or any value and the fault.

        Args:
            values: Column -> value: a text from CSV, any JSON or Arrow value from other files.
        """

    def is_complete(self, row: Mapping[str, str]) -> bool:
        """Return whether a line inside a quoted text is a complete row: its label is sound."""
        return not self.read(row)[1]

    @abstractmethod
    def divide(
        self, labels: Sequence[Any], fraction: float, seed: int
    ) -> tuple[list[int], list[int]]:
        """Return the positions of two parts; the second has this fraction of the samples."""

    def strata(self, labels: Sequence[Any]) -> Sequence[int]:
        """Return the stratum of each sample: parts of grouped samples have equal shares of it."""
        return [0] * len(labels)

    def unseen(self, labels: Sequence[Any]) -> list[str]:  # noqa: ARG002 - for subclasses
        """Return the names of classes without a sample; empty if there are no classes."""
        return []


@dataclass(frozen=True)
class ClassLabels(LabelReader):
    """One class for each sample.

    Attributes:
        column: Column of class names, or of typed numbers.
        class_names: Name of class 0, 1, ...
        label_map: Other values of the column.
    """

    column: str
    class_names: Sequence[str]
    label_map: LabelMap = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The label column."""
        return [self.column]

    def read(self, values: Mapping[str, Any]) -> tuple[int, str]:
        """Return the class, 0..K-1; see `class_of`."""
        value = values.get(self.column)
        known = self._classes.get(value) if isinstance(value, str) else None
        if known is None and mapped_name(value, self.label_map) is None:
            known = self._keys.get(label_key(value))
        if known is not None:
            return known, ""
        return class_of(value, self.class_names, self.label_map)

    @cached_property
    def _classes(self) -> dict[str, int]:
        """Class of each name, for the many rows whose label needs no further look."""
        return {composed(name): k for k, name in enumerate(self.class_names)}

    @cached_property
    def _keys(self) -> dict[str, int]:
        """Class of each key that one class has; see `label_key`."""
        keys = [label_key(name) for name in self.class_names]
        return {key: k for k, key in enumerate(keys) if keys.count(key) == 1}

    def is_complete(self, row: Mapping[str, str]) -> bool:
        """Return whether the label of a row is the name of a class, or stands for one."""
        label = label_text(row[self.column])
        return (
            label in self._classes
            or mapped_name(label, self.label_map) is not None
            or label_key(label) in self._keys
        )

    def divide(
        self, labels: Sequence[int], fraction: float, seed: int
    ) -> tuple[list[int], list[int]]:
        """Return the positions of two parts with the same fraction of every class."""
        return stratified_split(labels, fraction, seed)

    def strata(self, labels: Sequence[int]) -> Sequence[int]:
        """Return the class of each sample."""
        return labels

    def unseen(self, labels: Sequence[int]) -> list[str]:
        """Return the names of the classes without a sample."""
        seen = set(labels)
        return [name for k, name in enumerate(self.class_names) if k not in seen]


class _SeveralLabels(LabelReader):
    """Any number of labels for each sample: a tuple of K floats, 0 or 1."""

    class_names: Sequence[str]

    def divide(
        self, labels: Sequence[tuple[float, ...]], fraction: float, seed: int
    ) -> tuple[list[int], list[int]]:
        """Return the positions of two parts, stratified by the rarest label of each sample."""
        return stratified_split(self.strata(labels), fraction, seed)

    def strata(self, labels: Sequence[tuple[float, ...]]) -> Sequence[int]:
        """Return the rarest label of each sample."""
        counts = [sum(values) for values in zip(*labels, strict=True)]
        rarest_first = sorted(range(len(counts)), key=lambda k: (counts[k], k))
        return [next((k for k in rarest_first if values[k]), len(counts)) for values in labels]

    def unseen(self, labels: Sequence[tuple[float, ...]]) -> list[str]:
        """Return the names of the labels that no sample has."""
        return [
            name
            for k, name in enumerate(self.class_names)
            if not any(values[k] for values in labels)
        ]


@dataclass(frozen=True)
class LabelColumns(_SeveralLabels):
    """A column of 0 and 1 for each label.

    Attributes:
        label_columns: Column of label 0, 1, ...
        class_names: Name of label 0, 1, ...
    """

    label_columns: Sequence[str]
    class_names: Sequence[str]

    @property
    def columns(self) -> list[str]:
        """The label columns."""
        return list(self.label_columns)

    def read(self, values: Mapping[str, Any]) -> tuple[tuple[float, ...], str]:
        """Return 0 or 1 for each label."""
        found = []
        for column in self.label_columns:
            value = values.get(column)
            text = str(value).strip().lower() if value is not None else ""
            if text not in _YES | _NO:
                received = f"holds {value!r}" if text else "is empty"
                return (), f"column '{column}' {received}; 0 or 1 is needed"
            found.append(_PRESENT if text in _YES else _ABSENT)
        return tuple(found), ""


@dataclass(frozen=True)
class SeparatedLabels(_SeveralLabels):
    """A column with the names of a sample's labels. An empty cell means no label.

    Attributes:
        column: The column. A list of names or of typed numbers is read as well.
        separator: String between two names.
        class_names: Name of label 0, 1, ...
        label_map: Other values between the separators.
    """

    column: str
    separator: str
    class_names: Sequence[str]
    label_map: LabelMap = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The label column."""
        return [self.column]

    def read(self, values: Mapping[str, Any]) -> tuple[tuple[float, ...], str]:
        """Return 0 or 1 for each label."""
        value = values.get(self.column)
        text = "" if value is None else str(value)
        parts = value if isinstance(value, list) else text.split(self.separator)
        chosen = set()
        for part in parts:
            if isinstance(part, str) and not part.strip():
                continue
            label, reason = class_of(part, self.class_names, self.label_map)
            if reason:
                return (), reason
            chosen.add(label)
        return tuple(_PRESENT if k in chosen else _ABSENT for k in range(len(self.class_names))), ""


def composed(name: str) -> str:
    """Return a name with each accented letter as one character; some programs write two."""
    return normalize("NFC", name)


def label_text(value: object) -> str:
    """Return a label as text: whole numbers without a point, true and false in small letters."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return composed(str(value).strip()) if value is not None else ""


def label_key(value: object) -> str:
    """Return what different spellings of a label share: 1, 1.0 and `1.0`; true and `True`."""
    text = label_text(value)
    number = _WHOLE_NUMBER.fullmatch(text)
    if number:
        return number[1]
    return text.lower() if text.lower() in ("true", "false") else text


def mapped_name(value: object, label_map: LabelMap) -> str | None:
    """Return the name that a label map gives to a value, in any spelling; None if it has none."""
    return label_map.get(label_text(value)) or label_map.get(label_key(value))


def class_of(
    value: object, class_names: Sequence[str], label_map: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Return the class of a label.

    Args:
        value: A class name, a value of `label_map`, or a typed number if no class name is a number.
        class_names: Name of class 0, 1, ...
        label_map: Value -> class name, for values that are no class names.

    Returns:
        The class and an empty string, or -1 and the reason.
    """
    mapped = mapped_name(value, label_map or {})
    if mapped is not None:
        return list(class_names).index(mapped), ""
    keys = [label_key(name) for name in class_names]
    numbered = not any(key.lstrip("-").isdigit() for key in keys)
    if numbered and isinstance(value, int) and not isinstance(value, bool):
        inside = 0 <= value < len(class_names)
        return (
            (value, "")
            if inside
            else (-1, f"label {value} is outside of 0..{len(class_names) - 1}")
        )
    text = composed(str(value).strip()) if value is not None else ""
    if text in class_names:
        return list(class_names).index(text), ""
    spelled = [composed(name) for name in class_names]
    if text in spelled:
        return spelled.index(text), ""
    if label_key(value) in keys:
        return keys.index(label_key(value)), ""
    near = near_names(text, class_names, count=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return -1, f"label '{text}' is none of {shortened(class_names)}{hint}"
