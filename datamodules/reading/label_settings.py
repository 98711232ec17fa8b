"""The settings of labels: they agree with each other, and choose the reader of the labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from datamodules.reading.errors import DataError
from datamodules.reading.labels import (
    SEPARATOR,
    ClassLabels,
    LabelColumns,
    LabelMap,
    LabelReader,
    SeparatedLabels,
    composed,
    label_key,
    label_text,
)
from run_folders.errors import shortened


def check_classes(classes: Sequence[str], num_classes: int | None) -> None:
    """Raise `DataError` if the number of names is not `num_classes`, or a name occurs twice."""
    if len(classes) != num_classes:
        msg = (
            f"data.num_classes={num_classes}, "
            f"but data.classes names {len(classes)}: {shortened(classes)}"
        )
        raise DataError(msg)
    names = [composed(name) for name in classes]
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        msg = f"data.classes names a class twice: {repeated}"
        raise DataError(msg)


def label_reader(
    column: str | Sequence[str],
    separator: str | None,
    class_names: Sequence[str],
    label_map: Mapping[Any, str] | None = None,
) -> LabelReader:
    """Return the reader for the settings `label_column`, `label_separator` and `label_map`.

    Args:
        column: The label column, or the 0/1 column of each label.
        separator: String between the labels of a sample; None for one class for each sample.
        class_names: Name of class or label 0, 1, ...
        label_map: Value in the column -> name of a class or label, for values that are no names.

    Raises:
        DataError: If the settings contradict each other.
    """
    names = _label_map(label_map or {}, class_names)
    if not class_names:
        msg = "data.classes: the names of the classes in the label column are needed"
        raise DataError(msg)
    if isinstance(column, str):
        if separator is None:
            if len(class_names) < 2:  # noqa: PLR2004
                msg = f"data.classes names only {class_names[0]!r}; two or more classes are needed"
                raise DataError(msg)
            return ClassLabels(column, class_names, names)
        if not separator:
            msg = "data.label_separator: received an empty string; choose another one, or null"
            raise DataError(msg)
        _check_names(class_names, separator)
        return SeparatedLabels(column, separator, class_names, names)
    if separator is not None:
        msg = (
            f"data.label_separator: received {separator!r}, and data.label_column names "
            f"{len(column)} columns; set one of the two"
        )
        raise DataError(msg)
    if len(column) != len(class_names):
        msg = (
            f"data.label_column names {len(column)} columns, and data.classes {len(class_names)} "
            f"labels; one column is needed for each label"
        )
        raise DataError(msg)
    repeated = next((name for name in column if list(column).count(name) > 1), None)
    if repeated is not None:
        msg = f"data.label_column names {repeated} twice; remove one"
        raise DataError(msg)
    _check_names(class_names, SEPARATOR)
    return LabelColumns(column, class_names)


def _label_map(given: Mapping[Any, str], class_names: Sequence[str]) -> LabelMap:
    known = {composed(name): name for name in class_names}
    unknown = next((name for name in given.values() if composed(name) not in known), None)
    if unknown is not None:
        msg = f"data.label_map: received {unknown!r}, which is none of {shortened(class_names)}"
        raise DataError(msg)
    names: dict[str, str] = {}
    for value, name in given.items():
        text, name = label_text(value), known[composed(name)]
        before = known[text] if text in known else names.setdefault(text, name)
        if before != name:
            msg = f"data.label_map: {text!r} stands for {before!r} and {name!r}; remove one"
            raise DataError(msg)
    # 1, 1.0 and '1.0' are one value, unless they stand for different names.
    keys = [(label_key(value), names.get(label_text(value))) for value in given]
    for key, found in keys:
        if found is not None and key not in known and all(n == found for k, n in keys if k == key):
            names.setdefault(key, found)
    return names


def _check_names(class_names: Sequence[str], separator: str) -> None:
    inside = next((name for name in class_names if separator in name), None)
    if inside is not None:
        msg = (
            f"data.classes: the name {inside!r} contains {separator!r}, which separates labels; "
            f"rename it"
        )
        raise DataError(msg)
