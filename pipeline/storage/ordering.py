"""Sorting listings of any length in bounded memory."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Any

from unipic.pipeline.storage.errors import from_system

RUN_ITEMS = 50_000
Item = tuple[Any, ...]


def in_order(items: Iterable[Item], *, run_items: int = RUN_ITEMS) -> Iterator[Item]:
    """`items`, tuples of text and numbers, sorted.

    All are read before the first is given. `run_items` of them are in memory, the others in temporary files.
    """
    rest = iter(items)
    run = sorted(islice(rest, run_items))
    if len(run) < run_items:
        return iter(run)
    try:
        runs = []
        while run:
            runs.append(_spill(run))
            run = sorted(islice(rest, run_items))
    except OSError as error:
        raise from_system(error, tempfile.gettempdir()) from error
    return heapq.merge(*map(_spilled, runs))


def _spill(run: list[Item]) -> IO[str]:
    file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 - closed when read
    file.writelines(f"{json.dumps(item)}\n" for item in run)
    file.seek(0)
    return file


def _spilled(file: IO[str]) -> Iterator[Item]:
    with file:
        for line in file:
            yield tuple(json.loads(line))
