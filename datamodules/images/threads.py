"""Work on many items in threads, which helps because Pillow releases Python's lock in decoding."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_MOST_THREADS = 4
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def in_threads(
    work: Callable[[_In], _Out], items: Iterable[_In], together: int = 1
) -> Iterator[tuple[_In, _Out]]:
    """Apply a function to each item in threads and yield (item, result) in order.

    Only a few items are read ahead, so neither items nor results collect in memory.

    Args:
        work: The function.
        items: Its arguments.
        together: Number of items that a thread takes at once; more if the work is short.
    """

    def work_on(some: list[_In]) -> list[tuple[_In, _Out]]:
        return [(item, work(item)) for item in some]

    rest = iter(items)
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting: deque[Future[list[tuple[_In, _Out]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(rest, together)):
            waiting.append(pool.submit(work_on, some))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
