"""The classes of a segmentation dataset: names, colours, and what the values of its masks mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import yaml

from datamodules.batches import IGNORE_INDEX
from datamodules.reading.errors import DataError
from run_folders.errors import brief, near_names

_FOLDER = Path(__file__).parent / "class_lists"
_KEYS = ("zero_is_unlabelled", "ignore_value", "classes")
_HIGHEST = 255  # of 8 bits

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClassList:
    """Classes and the values that stand for them.

    Attributes:
        names: Of class 0, 1, ...
        colours: Red, green and blue of each, 0..255.
        zero_is_unlabelled: Whether a mask's 0 is no class and its 1 is class 0.
        ignore_value: A further value of masks that is no class; None where there is none.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    zero_is_unlabelled: bool
    ignore_value: int | None

    @classmethod
    def read(cls, name: str | Mapping[str, Any]) -> Self:
        """Read a list: the name of one of ours, the path of a YAML file, or what would stand in one.

        Raises:
            DataError: If there is none, or it is no class list.
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
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            msg = f"{path}: cannot be read as YAML ({brief(error)})"
            raise DataError(msg) from error
        return cls.from_plain(content, str(path))

    @classmethod
    def from_plain(cls, content: Any, origin: str) -> Self:  # noqa: ANN401 - whatever a file holds
        """Take a list as a YAML file has it; see `as_plain`.

        Raises:
            DataError: If it is no class list; the message begins with `origin`.
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
        return cls(names, colours, content["zero_is_unlabelled"], content["ignore_value"])

    def as_plain(self) -> dict[str, Any]:
        """Plain values, as a YAML file has them."""
        classes = [
            {"name": n, "colour": list(c)} for n, c in zip(self.names, self.colours, strict=True)
        ]
        return {
            "zero_is_unlabelled": self.zero_is_unlabelled,
            "ignore_value": self.ignore_value,
            "classes": classes,
        }

    def decode(self, values: Pixels) -> tuple[Pixels, str]:
        """Bring the values of a mask to classes.

        Args:
            values: [H, W] as the file has them.

        Returns:
            [H, W] classes 0..K-1, or 255 where nothing is labelled; and what is wrong with the
            values, or an empty string.
        """
        counts = np.bincount(values.ravel(), minlength=_HIGHEST + 1)
        table = self._classes_of_values()
        strange = np.flatnonzero((counts > 0) & (table < 0))
        labels = np.where(table < 0, IGNORE_INDEX, table).astype(np.uint8)[values]
        if not len(strange):
            return labels, ""
        found = ", ".join(f"{value} in {counts[value]:,} pixels" for value in strange[:3])
        more = f" and {len(strange) - 3} more values" if len(strange) > 3 else ""  # noqa: PLR2004
        return labels, f"holds {found}{more}, which stand for no class; {self._known()}"

    def encode(self, labels: Pixels) -> Pixels:
        """Bring classes [H, W] to the values that the dataset's own masks have for them."""
        return labels + np.uint8(1) if self.zero_is_unlabelled else labels

    def _classes_of_values(self) -> npt.NDArray[np.int16]:
        """[256] class of each value; 255 is not labelled, -1 is no value of this dataset."""
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
        none = [
            str(v)
            for v in ([0] if first else [])
            + ([] if self.ignore_value is None else [self.ignore_value])
        ]
        return f"{text}, and {' and '.join(none)} for what is not labelled" if none else text


def _fault(content: Any) -> str:  # noqa: ANN401 - whatever a file holds; a line for each fault
    """What keeps plain values from being a class list."""
    if not isinstance(content, Mapping) or set(content) != set(_KEYS):
        return f"a class list has the keys {', '.join(_KEYS)}"
    if not isinstance(content["zero_is_unlabelled"], bool):
        return (
            f"zero_is_unlabelled: received {content['zero_is_unlabelled']!r}; choose true or false"
        )
    classes, ignored = content["classes"], content["ignore_value"]
    highest = _HIGHEST - int(content["zero_is_unlabelled"])
    if not isinstance(classes, list) or not 2 <= len(classes) <= highest:  # noqa: PLR2004
        return f"classes: a list of 2 to {highest} classes is needed"
    for place, entry in enumerate(classes):
        if not isinstance(entry, Mapping) or set(entry) != {"name", "colour"}:
            return f"classes, entry {place + 1}: received {entry!r}; {{name: ..., colour: [red, green, blue]}} is needed"
        if not isinstance(entry["name"], str) or not entry["name"].strip():
            return f"classes, entry {place + 1}: received {entry['name']!r} as its name; text is needed (put it in quotes)"
        colour = entry["colour"]
        right = (
            isinstance(colour, list)
            and len(colour) == 3  # noqa: PLR2004
            and all(type(c) is int and 0 <= c <= _HIGHEST for c in colour)
        )
        if not right:
            return f"classes, {entry['name']}: colour is {colour!r}; three whole numbers of 0 to {_HIGHEST} are needed"
    names = [entry["name"] for entry in classes]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        return f"classes: {twice[0]} stands there twice"
    first = int(content["zero_is_unlabelled"])
    if ignored is not None and (type(ignored) is not int or not 0 <= ignored <= _HIGHEST):
        return f"ignore_value: received {ignored!r}; a whole number of 0 to {_HIGHEST} or null is needed"
    if ignored is not None and first <= ignored < first + len(names):
        return f"ignore_value: {ignored} is the value of {names[ignored - first]}"
    return ""
