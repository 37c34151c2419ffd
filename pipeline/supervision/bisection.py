"""Which rows kill a process: the ranges of rows that processes died of are halved until single rows are left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from unipic.pipeline.supervision.health import Rows

CRASHES_BEFORE_SPLIT = 2
"""A process can die of many things; a range of rows is suspected when two have died of it."""


def decide(rows: Rows, crashed: Sequence[Rows], *, suspect: bool = False) -> Literal["attempt", "halve", "reject"]:
    """What to do with `rows`.

    Args:
        crashed: the ranges that processes died of, with repeats.
        suspect: `rows` are part of a range that failed.
    """
    first, last = rows
    deaths = sum(crash == rows for crash in crashed)
    inside = any(first <= crash[0] and crash[1] <= last and crash != rows for crash in crashed)
    if last - first == 1:
        return "reject" if deaths >= CRASHES_BEFORE_SPLIT else "attempt"
    return "halve" if inside or deaths >= (1 if suspect else CRASHES_BEFORE_SPLIT) else "attempt"


def halves(rows: Rows) -> tuple[Rows, Rows]:
    """Both halves of at least two rows; the first may be one longer."""
    middle = (rows[0] + rows[1] + 1) // 2
    return (rows[0], middle), (middle, rows[1])


def deadly_rows(
    rows: Rows, crashed: Sequence[Rows], attempt: Callable[[Rows], object], *, suspect: bool = False
) -> Iterator[int]:
    """The rows that kill a process, given the ranges that processes died of so far.

    Args:
        attempt: does the work on a range of rows; this process may die of it, and the next one goes on from there.
    """
    what = decide(rows, crashed, suspect=suspect)
    if what == "reject":
        yield rows[0]
    elif what == "halve":
        for half in halves(rows):
            yield from deadly_rows(half, crashed, attempt, suspect=True)
    else:
        attempt(rows)
