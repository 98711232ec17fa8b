"""Class names: labels of a column mapped to classes, and checks of the configured names."""

from collections.abc import Sequence

from datamodules.reading.errors import DataError
from run_folders.errors import near_names


def class_of(value: object, class_names: Sequence[str]) -> tuple[int, str]:
    """Return the class of a label.

    Args:
        value: A class name, or a typed number if no class name is a number.
        class_names: Name of class 0, 1, ...

    Returns:
        The class and an empty string, or -1 and the reason.
    """
    numbered = not any(name.lstrip("-").isdigit() for name in class_names)
    if numbered and isinstance(value, int) and not isinstance(value, bool):
        inside = 0 <= value < len(class_names)
        return (
            (value, "")
            if inside
            else (-1, f"label {value} is outside of 0..{len(class_names) - 1}")
        )
    text = str(value).strip() if value is not None else ""
    if text in class_names:
        return list(class_names).index(text), ""
    near = near_names(text, class_names, count=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return -1, f"label '{text}' is none of {', '.join(class_names)}{hint}"


def check_classes(classes: Sequence[str], num_classes: int) -> None:
    """Raise `DataError` if the number of names is not `num_classes`, or a name occurs twice."""
    if len(classes) != num_classes:
        msg = (
            f"data.num_classes={num_classes}, "
            f"but data.classes names {len(classes)}: {', '.join(classes)}"
        )
        raise DataError(msg)
    if len(set(classes)) != len(classes):
        msg = f"data.classes names a class twice: {', '.join(classes)}"
        raise DataError(msg)
