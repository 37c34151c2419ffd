"""Reading many small objects at once, in order, with a bounded number of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(read: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int) -> Iterator[R]:
    """`map(read, items)` in order, while threads read what comes next.

    Args:
        ahead: the most items that are read, or being read, and not given yet.
    """
    rest = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            while True:
                waiting.extend(pool.submit(read, one) for one in islice(rest, ahead - len(waiting)))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:  # a reader that stops early, or fails, does not wait for what it will not look at
            for one in waiting:
                one.cancel()
