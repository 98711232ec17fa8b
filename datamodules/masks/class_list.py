"""Classes of a segmentation dataset: names, colours, and the mask values that represent them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from datamodules.batches import IGNORE_INDEX
from datamodules.reading.errors import DataError
from run_folders.errors import near_names, shortened
from run_folders.untrusted import read_yaml

_FOLDER = Path(__file__).parent / "class_lists"
_KEYS = ("zero_is_unlabelled", "ignore_value", "classes")
_HIGHEST = 255  # largest value of a mask and of a colour channel, 8 bits

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClassList:
    """Classes and the values of masks that represent them.

    Attributes:
        names: Name of class 0, 1, ...
        colours: Red, green and blue of each class, 0..255.
        zero_is_unlabelled: Whether value 0 means unlabelled and value 1 means class 0.
        ignore_value: Another value that means unlabelled; None if there is none.
        label_map: Mask value -> class, in place of the two attributes above; values that it does
            not name are unlabelled. None if there is none.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    zero_is_unlabelled: bool
    ignore_value: int | None
    label_map: Mapping[int, int] | None = None

    @classmethod
    def read(cls, name: str | Mapping[str, Any]) -> Self:
        """Read a class list.

        Args:
            name: Name of one of Thaw's class lists, path of a YAML file, or the content of such a
                file.

        Raises:
            DataError: If the file does not exist or is not a valid class list.
            DamagedFileError: If it is not YAML.
        """
        if not isinstance(name, str):
            return cls.from_plain(name, "data.class_list")
        path = (
            _FOLDER / f"{name}.yaml"
            if not name.endswith((".yaml", ".yml"))
            else Path(name).expanduser()
        )
        if not path.is_file():
            ours = sorted(file.stem for file in _FOLDER.glob("*.yaml"))
            near = near_names(name, ours, count=1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"give {' or '.join(ours)}, or the path of a .yaml file"
            )
            msg = f"data.class_list={name}: no such class list; {hint}"
            raise DataError(msg)
        content = read_yaml(path, advice="correct the class list, or take another one")
        return cls.from_plain(content, str(path))

    @classmethod
    def from_plain(cls, content: Any, origin: str) -> Self:  # noqa: ANN401 - whatever a file holds
        """Return the class list with this content of a YAML file; the inverse of `as_plain`.

        Raises:
            DataError: If it is not a valid class list; the message begins with `origin`.
        """
        fault = _fault(content)
        if fault:
            msg = f"{origin}: {fault}"
            raise DataError(msg)
        classes = content["classes"]
        colours = tuple(
            (int(r), int(g), int(b)) for r, g, b in (entry["colour"] for entry in classes)
        )
        names = tuple(entry["name"] for entry in classes)
        found = cls(names, colours, content["zero_is_unlabelled"], content["ignore_value"])
        return found.mapped(content.get("label_map"))

    def mapped(self, label_map: Mapping[int, int] | None) -> Self:
        """Return the class list for masks with other values; None changes nothing.

        Raises:
            DataError: If the map is invalid.
        """
        if label_map is None:
            return self
        for value, label in label_map.items():
            numbers = type(value) is int and type(label) is int
            known = numbers and (0 <= label < len(self.names) or label == IGNORE_INDEX)
            if not (known and 0 <= value <= _HIGHEST):
                msg = (
                    f"data.label_map: received {value!r}: {label!r}; a mask value of 0 to "
                    f"{_HIGHEST} and a class number of 0 to {len(self.names) - 1} are needed, or "
                    f"{IGNORE_INDEX} for unlabelled"
                )
                raise DataError(msg)
        missing = set(range(len(self.names))) - set(label_map.values())
        if missing:
            shown = shortened(f"{k} ({self.names[k]})" for k in sorted(missing))
            msg = f"data.label_map: no mask value stands for class {shown}; add one for each class"
            raise DataError(msg)
        return replace(self, label_map=dict(label_map))

    def as_plain(self) -> dict[str, Any]:
        """Return the content of a YAML file with this class list."""
        classes = [
            {"name": n, "colour": list(c)} for n, c in zip(self.names, self.colours, strict=True)
        ]
        content = {
            "zero_is_unlabelled": self.zero_is_unlabelled,
            "ignore_value": self.ignore_value,
            "classes": classes,
        }
        return content if self.label_map is None else {**content, "label_map": self.label_map}

    def decode(self, values: Pixels) -> tuple[Pixels, str]:
        """Convert the values of a mask to classes.

        Args:
            values: [H, W] uint8 values of the file.

        Returns:
            [H, W] uint8 classes 0..K-1, or 255 for unlabelled pixels; and why the values are
            invalid, or an empty string.
        """
        counts = np.bincount(values.ravel(), minlength=_HIGHEST + 1)
        table = self._classes_of_values()
        unknown = np.flatnonzero((counts > 0) & (table < 0))
        labels = np.where(table < 0, IGNORE_INDEX, table).astype(np.uint8)[values]
        if not len(unknown):
            return labels, ""
        found = ", ".join(
            f"{value} in {counts[value]:,} pixel{'s' if counts[value] > 1 else ''}"
            for value in unknown[:3]
        )
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""  # noqa: PLR2004
        noun, verb = ("value", "is") if len(unknown) == 1 else ("values", "are")
        fault = f"has the {noun} {found}{more}, which {verb} not in the class list"
        return labels, f"{fault}; {self._known()}"

    def encode(self, labels: Pixels) -> Pixels:
        """Convert classes [H, W] to the values that masks of the dataset have for them."""
        if self.label_map is not None:
            table = np.zeros(_HIGHEST + 1, np.uint8)
            for value, label in reversed(list(self.label_map.items())):  # the first value wins
                table[label] = value
            return table[labels]
        return labels + np.uint8(1) if self.zero_is_unlabelled else labels

    def left_out(self) -> npt.NDArray[np.bool_]:
        """Return [256]: whether a mask value is unlabelled only because `label_map` lacks it."""
        missing = np.zeros(_HIGHEST + 1, np.bool_)
        if self.label_map is not None:
            missing[:] = True
            missing[[*self.label_map, _HIGHEST]] = False
        return missing

    def _classes_of_values(self) -> npt.NDArray[np.int16]:
        """Return [256] int16 class of each value; 255 is unlabelled, -1 is an unknown value."""
        if self.label_map is not None:
            table = np.full(_HIGHEST + 1, IGNORE_INDEX, np.int16)
            table[list(self.label_map)] = list(self.label_map.values())
            return table
        table = np.full(_HIGHEST + 1, -1, np.int16)
        first = int(self.zero_is_unlabelled)
        table[first : first + len(self.names)] = np.arange(len(self.names))
        if self.zero_is_unlabelled:
            table[0] = IGNORE_INDEX
        if self.ignore_value is not None:
            table[self.ignore_value] = IGNORE_INDEX
        return table

    def _known(self) -> str:
        first = int(self.zero_is_unlabelled)
        text = f"known are {first} to {first + len(self.names) - 1}"
        unlabelled = [
            str(v)
            for v in ([0] if first else [])
            + ([] if self.ignore_value is None else [self.ignore_value])
        ]
        if not unlabelled:
            return text
        return f"{text}, and {' and '.join(unlabelled)} for unlabelled pixels"


def _fault(content: Any) -> str:  # noqa: ANN401 - whatever a file holds
    """Return why the content of a YAML file is not a class list, or an empty string."""
    if not isinstance(content, Mapping) or set(content) - {"label_map"} != set(_KEYS):
        return f"a class list has the keys {', '.join(_KEYS)}"
    if not isinstance(content["zero_is_unlabelled"], bool):
        return (
            f"zero_is_unlabelled: received {content['zero_is_unlabelled']!r}; choose true or false"
        )
    classes, ignored = content["classes"], content["ignore_value"]
    highest = _HIGHEST - int(content["zero_is_unlabelled"])
    if not isinstance(classes, list) or not 2 <= len(classes) <= highest:  # noqa: PLR2004
        return f"classes: a list of 2 to {highest} classes is needed"
    for number, entry in enumerate(classes, start=1):
        if not isinstance(entry, Mapping) or set(entry) != {"name", "colour"}:
            return (
                f"classes, entry {number}: received {entry!r}; "
                "{name: ..., colour: [red, green, blue]} is needed"
            )
        if not isinstance(entry["name"], str) or not entry["name"].strip():
            return (
                f"classes, entry {number}: received {entry['name']!r} as its name; "
                "text is needed (put it in quotes)"
            )
        colour = entry["colour"]
        valid = (
            isinstance(colour, list)
            and len(colour) == 3  # noqa: PLR2004
            and all(type(c) is int and 0 <= c <= _HIGHEST for c in colour)
        )
        if not valid:
            return (
                f"classes, {entry['name']}: colour is {colour!r}; "
                f"three whole numbers of 0 to {_HIGHEST} are needed"
            )
    names = [entry["name"] for entry in classes]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        return f"classes: {twice[0]} is listed twice"
    first = int(content["zero_is_unlabelled"])
    if ignored is not None and (type(ignored) is not int or not 0 <= ignored <= _HIGHEST):
        return (
            f"ignore_value: received {ignored!r}; "
            f"a whole number of 0 to {_HIGHEST} or null is needed"
        )
    if ignored is not None and first <= ignored < first + len(names):
        return f"ignore_value: {ignored} is the value of {names[ignored - first]}"
    return ""
