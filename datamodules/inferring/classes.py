"""The classes of a dataset from its labels: sorted names, and a question where they are none."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress

from datamodules.reading.errors import DataError
from datamodules.reading.labels import label_text
from run_folders.errors import shortened

MOST_CLASSES = 100  # more are rather names, identifiers or numbers
_MOST_FRACTIONS = 10  # so many different numbers with a fraction are rather measured than classes
_WHOLE = re.compile(r"(-?\d+)(\.0*)?")


def count_labels(values: Iterable[object]) -> Counter[str]:
    """Count the samples of each label; empty labels are not counted.

    Args:
        values: Label of each sample: a text from CSV, any JSON or Arrow value from other files.

    Returns:
        Name of the class -> number of samples. Whole numbers have no point: 1, 1.0 and `1.0` are
        the class `1`.
    """
    counts = Counter(label_text(value) for value in values if value == value)  # no NaN
    counts.pop("", None)
    whole = [_WHOLE.fullmatch(name) for name in counts]
    if not all(whole):
        return counts
    merged: Counter[str] = Counter()
    for match in filter(None, whole):
        merged[match[1]] += counts[match[0]]
    return merged


def sorted_classes(names: Iterable[str]) -> list[str]:
    """Return the names of the classes in order: by value if all are numbers, else as texts."""
    found = list(names)
    values = [_number(name) for name in found]
    if None in values:
        return sorted(found)
    return sorted(found, key=lambda name: (float(name), name))


def checked_classes(
    counts: Mapping[str, int],
    place: str,
    num_classes: int | None = None,
    *,
    several: bool = False,
) -> list[str]:
    """Return the classes in order.

    Args:
        counts: Name of the class -> number of samples.
        place: Where they are, for messages: `column 'label' of train.csv`.
        num_classes: What the user set; a right number says that these are classes.
        several: Whether a sample may have several labels.

    Raises:
        DataError: If there are none, or these are rather no classes; the message is a question.
    """
    classes, samples = sorted_classes(counts), sum(counts.values())
    if not classes:
        msg = f"{place} has no label; fill it, or name another column in data.label_column"
        raise DataError(msg)
    fractions = [name for name in classes if not _WHOLE.fullmatch(name)]
    what = ""
    if len(fractions) >= _MOST_FRACTIONS and None not in map(_number, classes):
        what = f"{len(fractions)} different numbers with a fraction"
    elif len(classes) > MOST_CLASSES:
        what = f"{len(classes)} different labels"
    elif len(classes) == samples > 1 and not several:
        what = f"a different label for each of {samples} samples"
    if what and num_classes != len(classes):
        msg = (
            f"{place} has {what} ({shortened(classes)}): are they classes? if so, set "
            f"data.num_classes={len(classes)}; if not, name another column in data.label_column"
        )
        raise DataError(msg)
    return classes


def _number(name: str) -> float | None:
    with suppress(ValueError):
        return float(name)
    return None
