"""Counts of rows and units, whoever did them."""

from __future__ import annotations

import pytest

from unipic.pipeline.execution.tally import Tally
from unipic.pipeline.records import Receipt
from unipic.pipeline.supervision.health import Health


def receipt(ok: int, rejected: int = 0) -> Receipt:
    return Receipt("u", "a.parquet", 0, ok + rejected, ok, rejected, (), "")


def test_rows_of_earlier_runs_and_of_this_one_are_told_apart() -> None:
    tally = Tally(rows_total=24, units_total=3)
    tally.add_earlier(receipt(7, 1))
    tally.add(receipt(8))
    assert (tally.ok, tally.rejected, tally.earlier) == (15, 1, 8)
    assert (tally.units_done, tally.units_left, tally.rows_left) == (2, 1, 8)


def test_a_unit_whose_rejected_rows_are_attempted_again_is_work_left_and_of_no_earlier_run() -> None:
    tally = Tally(rows_total=16, units_total=2)
    for _ in range(2):
        tally.add_earlier(receipt(7, 1))
    tally.take_back(receipt(7, 1))
    assert (tally.units_left, tally.ok, tally.rejected, tally.earlier) == (1, 7, 1, 8)


def test_the_pace_is_of_this_runs_rows_committed_and_answered() -> None:
    tally = Tally(rows_total=100, units_total=10)
    tally.add_earlier(receipt(20))
    tally.add(receipt(30))
    progress = tally.progress("running", Health(replicas=2, rows_answered=40), working_s=8.0)
    assert (progress.rows_on_the_way, progress.rows_per_s, progress.eta_s) == (10, 5.0, 8.0)
    assert (progress.rows_ok, progress.rows_earlier, progress.replicas, progress.units_done) == (50, 20, 2, 2)


@pytest.mark.parametrize("health", [None, Health()])
def test_before_the_first_answer_there_is_no_pace_and_no_time_left(health: Health | None) -> None:
    progress = Tally(rows_total=8, units_total=1).progress("starting", health, working_s=0.0, message="m", notes=("n",))
    assert (progress.rows_per_s, progress.eta_s, progress.replicas) == (0.0, None, 0)
    assert (progress.message, progress.notes) == ("m", ("n",))


def test_rows_answered_twice_are_never_more_on_the_way_than_rows_left() -> None:
    tally = Tally(rows_total=8, units_total=1)
    assert tally.progress("running", Health(rows_answered=20), working_s=1.0).rows_on_the_way == 8
