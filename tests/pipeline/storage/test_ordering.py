"""Listings of any length come sorted, with a bounded part of them in memory."""

from __future__ import annotations

import itertools
import random
import tempfile

import pytest

from unipic.pipeline.errors import StorageFull
from unipic.pipeline.storage.ordering import in_order


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 50])
def test_what_comes_in_any_order_leaves_sorted(count: int) -> None:
    items = [(f"name {number:03d} \udcff", number, "ü") for number in range(count)]
    mixed = random.Random(1).sample(items, count)
    assert list(in_order(mixed, run_items=7)) == items


def test_memory_does_not_grow_with_the_listing() -> None:
    import tracemalloc

    def peak(count: int) -> int:
        tracemalloc.start()
        last = ""
        for (name,) in in_order(((f"{(number * 7919) % count:09d}",) for number in range(count)), run_items=5_000):
            assert name >= last
            last = name
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    assert peak(100_000) < 2 * peak(10_000)


def test_a_temporary_folder_without_space_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(StorageFull, match=f"No space is left for {tempfile.gettempdir()}"):
        list(in_order(((number,) for number in itertools.count()), run_items=5))
