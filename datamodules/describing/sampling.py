"""Some of the samples of a split, evenly spread, where there are too many to open all."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from datamodules.describing.split_facts import SplitFacts
from datamodules.reading.errors import BadRow
from datamodules.reading.tables import open_parquet

_Item = TypeVar("_Item")


def count_samples(path: Path, read: Callable[[], Iterable[object]]) -> int:
    """Return how many samples a table or folder has, without opening them.

    Args:
        path: The table or folder.
        read: Returns the samples and bad rows.
    """
    if path.suffix.lower() == ".parquet" and path.is_file():
        with open_parquet(path) as file:
            return int(file.metadata.num_rows)
    return sum(not isinstance(item, BadRow) for item in read())


def evenly_spread(
    items: Iterable[_Item | BadRow],
    step: int,
    split: SplitFacts,
    pass_over: Callable[[_Item], None],
) -> Iterator[_Item]:
    """Yield one of `step` samples; bad rows and the samples between are counted in `split`.

    Args:
        items: Samples and bad rows.
        step: 1 yields all.
        split: Facts about the split.
        pass_over: Called with each sample that is not yielded.
    """
    position = 0
    for item in items:
        if isinstance(item, BadRow):
            split.add_bad(item)
            continue
        if position % step == 0:
            yield item
        else:
            pass_over(item)
            split.left_unchecked += 1
        position += 1
