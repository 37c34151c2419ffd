"""Rows that kill a process are found by halving, with few deaths, and no innocent row among them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unipic.pipeline.supervision.bisection import CRASHES_BEFORE_SPLIT, deadly_rows, decide
from unipic.pipeline.supervision.health import Rows


class Died(Exception):
    """The process is gone."""


def find(count: int, deadly: set[int]) -> tuple[list[int], int]:
    """The rows found, and how many processes died."""
    crashed: list[Rows] = []

    def attempt(rows: Rows) -> None:
        if deadly & set(range(*rows)):
            crashed.append(rows)
            raise Died

    while True:
        try:
            return list(deadly_rows((0, count), crashed, attempt)), len(crashed)
        except Died:
            continue


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=6))))
def test_exactly_the_deadly_rows_are_found(case: tuple[int, set[int]]) -> None:
    count, deadly = case
    found, _ = find(count, deadly)
    assert found == sorted(deadly)


@pytest.mark.parametrize("place", [0, 17, 63])
def test_one_row_among_64_costs_nine_processes(place: int) -> None:
    assert find(64, {place}) == ([place], 9)


def test_one_death_alone_is_the_machines_doing() -> None:
    assert decide((0, 8), [(0, 8)]) == "attempt"
    assert decide((0, 8), [(0, 8)] * CRASHES_BEFORE_SPLIT) == "halve"
    assert decide((3, 4), [(3, 4)]) == "attempt"
    assert decide((3, 4), [(3, 4)] * CRASHES_BEFORE_SPLIT) == "reject"
