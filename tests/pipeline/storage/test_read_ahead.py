"""Many small reads at once, in order, with few of them in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from unipic.pipeline.storage.read_ahead import read_ahead


def test_answers_come_in_the_order_of_the_items_whichever_is_read_first() -> None:
    last_began = threading.Event()

    def read(item: int) -> int:
        last_began.set() if item == 3 else last_began.wait(30)
        return item

    assert list(read_ahead(read, range(4), threads=4, ahead=4)) == [0, 1, 2, 3]


def test_no_more_items_are_taken_than_may_be_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1_000):
            taken.append(item)
            yield item

    found = read_ahead(lambda item: item, items(), threads=2, ahead=5)
    for expected in range(10):
        assert next(found) == expected
        assert len(taken) <= expected + 1 + 5
    found.close()  # type: ignore[attr-defined]


def test_an_error_comes_where_its_item_would_have() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise ValueError("the third")
        return item

    found = read_ahead(read, range(100), threads=2, ahead=4)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(found)
