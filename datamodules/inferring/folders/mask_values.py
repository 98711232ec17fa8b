"""The classes of segmentation masks: from a list of names in the folder, or from their values."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from datamodules.images.decoding import BadImageError, opened, pillow_errors
from datamodules.images.threads import in_threads
from datamodules.inferring.classes import MOST_CLASSES
from datamodules.masks.decoding import decode_mask
from datamodules.reading.encodings import open_text
from datamodules.reading.errors import DataError
from datamodules.reading.progress import tracked
from run_folders.errors import shortened

# Files with the names of the classes, one a line, and in Thaw's own format.
NAME_FILES = ("classes.txt", "class_names.txt", "codes.txt", "labels.txt", "label_colors.txt")
LIST_FILES = ("class_list.yaml", "class_list.yml", "classes.yaml", "classes.yml")
_VOID = 255  # value of unlabelled pixels, by convention
_VALUES = 256
_BINARY = ("background", "foreground")
_COLOURED = re.compile(r"(\d{1,3})[ \t,]+(\d{1,3})[ \t,]+(\d{1,3})[ \t,]+(\S.*)")

Colour = tuple[int, int, int]


class MaskValues(NamedTuple):
    """What masks have in common.

    Attributes:
        values: Their values, ascending.
        palette: Colour of each value in the first mask; empty if it has no palette.
    """

    values: list[int]
    palette: list[Colour]


class NamedClasses(NamedTuple):
    """Classes in a file.

    Attributes:
        names: Name of class 0, 1, ...
        colours: Their colours; empty if the file has none.
        file: Name of the file.
    """

    names: list[str]
    colours: list[Colour]
    file: str


def named_classes(path: Path) -> NamedClasses:
    """Read the names of classes, one a line, with or without a colour: `64 128 64 Animal`.

    Raises:
        DataError: If the file cannot be read.
    """
    with open_text(path) as lines:
        entries = [line.strip() for line in lines if line.strip()]
    coloured = [_COLOURED.fullmatch(entry) for entry in entries]
    if not all(coloured):
        return NamedClasses(entries, [], path.name)
    found = [match.groups() for match in coloured if match]
    colours = [(int(r), int(g), int(b)) for r, g, b, _ in found]
    return NamedClasses([name for *_, name in found], colours, path.name)


def values_of(
    masks: Iterable[bytes | Path], place: str, max_pixels: int, count: int | None = None
) -> MaskValues:
    """Read the values of masks. Masks that cannot be read are left to later checks.

    Args:
        masks: Files of the masks, or their content.
        place: Where they are, for messages.
        max_pixels: Largest width times height that is decoded.
        count: Number of masks; None if it is unknown.

    Raises:
        DataError: If no mask can be read.
    """

    def values(mask: bytes | Path) -> npt.NDArray[np.bool_] | str:
        try:
            pixels, _ = decode_mask(mask, max_pixels)
        except BadImageError as error:
            return f"{mask} {error}" if isinstance(mask, Path) else f"{place}: a mask {error}"
        return np.bincount(pixels.ravel(), minlength=_VALUES) > 0

    found, fault = np.zeros(_VALUES, np.bool_), ""
    palette: list[Colour] | None = None
    for mask, result in tracked(in_threads(values, masks), f"values of {place}", count, "masks"):
        if isinstance(result, str):
            fault = fault or result
        else:
            found |= result
            palette = _palette(mask) if palette is None else palette
    if palette is None:
        raise DataError(fault or f"{place}: there are none")
    return MaskValues([int(value) for value in np.flatnonzero(found)], palette)


def class_list_of(
    found: MaskValues, place: str, named: NamedClasses | None = None
) -> dict[str, Any]:
    """Return the class list for the values of masks.

    Args:
        found: The values.
        place: Where the masks are, for messages.
        named: Classes in a file.

    Returns:
        The content of a class list; see `ClassList`.

    Raises:
        DataError: If the values are rather no classes, or do not fit the names.
    """
    values = found.values
    void = _VOID in values and values != [0, _VOID]
    used = [value for value in values if value < _VOID or not void]
    _check(used, values, place)
    if named is not None:
        names, zero, mapped = (
            named.names,
            _zero_is_unlabelled(used, named, place),
            used == [0, _VOID],
        )
    else:
        names, zero, mapped = _names(used), False, used != [*range(len(used))]
    numbers = used if mapped else range(int(zero), int(zero) + len(names))
    colours = named.colours if named else []
    content: dict[str, Any] = {
        "zero_is_unlabelled": zero,
        "ignore_value": _VOID if void and not mapped else None,
        "classes": _entries(names, colours or _colours(numbers, found.palette)),
    }
    return {**content, "label_map": {v: k for k, v in enumerate(used)}} if mapped else content


def class_list_of_map(label_map: Mapping[int, int], named: NamedClasses | None) -> dict[str, Any]:
    """Return the class list for `data.label_map`, which has a mask value for each class."""
    count = 1 + max((k for k in label_map.values() if k != _VOID), default=0)
    names = named.names if named else [f"class {k}" for k in range(count)]
    colours = (named and named.colours) or _colours(range(len(names)), [])
    return {
        "zero_is_unlabelled": False,
        "ignore_value": None,
        "classes": _entries(names, colours),
    }


def _names(values: Sequence[int]) -> list[str]:
    """Return names for the classes of values without names."""
    if len(values) == len(_BINARY) and values[0] == 0 and values[1] in (1, _VOID):
        return list(_BINARY)
    return [f"class {value}" for value in values]


def _entries(names: Sequence[str], colours: Sequence[Colour]) -> list[dict[str, Any]]:
    """Return the entries of a class list."""
    return [{"name": n, "colour": list(c)} for n, c in zip(names, colours, strict=True)]


def _colours(values: Sequence[int], palette: Sequence[Colour]) -> list[Colour]:
    """Return the colours of values in a palette; others if these are not distinct."""
    found = [palette[value] for value in values if value < len(palette)]
    return found if len(set(found)) == len(values) else [_colour(value) for value in values]


def _palette(mask: bytes | Path) -> list[Colour]:
    """Return the palette of a mask; empty if it has none."""
    with opened(mask) as file, pillow_errors(), Image.open(file) as image:
        palette = image.getpalette() if image.mode == "P" else None
    return [] if palette is None else list(zip(*[iter(palette)] * 3, strict=True))


def _check(used: Sequence[int], values: Sequence[int], place: str) -> None:
    shown = shortened(map(str, values))
    if len(used) < 2:  # noqa: PLR2004
        msg = f"{place} have only the value {shown}; are they masks? set data.annotations"
        raise DataError(msg)
    if len(used) > MOST_CLASSES:
        msg = (
            f"{place} have {len(used)} different values ({shown}): are they masks of classes? "
            "set data.annotations to the masks, or name the classes in data.class_list"
        )
        raise DataError(msg)


def _zero_is_unlabelled(used: Sequence[int], named: NamedClasses, place: str) -> bool:
    """Return whether value 1 means the first name; raise `DataError` if the names do not fit."""
    count, highest = len(named.names), used[-1]
    if highest < count or (list(used) == [0, _VOID] and count == len(used)):
        return False
    if highest == count and used[0] > 0:
        return True
    shown = shortened(map(str, used))
    zero = "; is 0 a class, too? add its name, or set data.class_list" if highest == count else ""
    msg = (
        f"{named.file} names {count} classes, and {place} have the values {shown}"
        f"{zero or '; correct it, or set data.class_list'}"
    )
    raise DataError(msg)


def _colour(value: int) -> Colour:
    """Return the colour of a value in PASCAL VOC, where each one differs from all others."""
    bits = [(value >> 3 * place) & 7 for place in range(3)]
    r, g, b = (sum(((bit >> c) & 1) << 7 - i for i, bit in enumerate(bits)) for c in range(3))
    return r, g, b
