"""Each reason to stop, with a clock that a test moves."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.clock import FakeClock
from tests.fakes import make_job
from unipic.pipeline.execution.deadline import Deadline, deadline
from unipic.pipeline.execution.stop_policy import StopPolicy
from unipic.pipeline.execution.tally import Tally
from unipic.pipeline.supervision.admission import LOAD_DEATH, LOAD_DEATHS
from unipic.pipeline.supervision.failures import Failure
from unipic.pipeline.supervision.health import Health

HOUR_S = 3600.0


def policy_of(root: Path, clock: FakeClock | None = None, *, stop: bool = False, **limits: Any) -> StopPolicy:
    job = make_job(root, **{f"limits__{name}": value for name, value in limits.items()})
    return StopPolicy(job, 100, stop_requested=lambda: stop, now=(clock or FakeClock()).now)


def tally(rejected: int = 0) -> Tally:
    return Tally(rows_total=100, units_total=10, rejected=rejected)


def test_without_a_reason_a_run_goes_on(tmp_path: Path) -> None:
    policy = policy_of(tmp_path)
    assert not policy.check(tally(), None) and not policy.check(tally(), Health())
    assert not policy.stopping


def test_the_user_may_ask_to_stop(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, stop=True)
    assert policy.check(tally(), None) and policy.reason == "asked to stop"


def test_more_rejected_rows_than_allowed_stop_it(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, max_rejected="10%")
    assert not policy.check(tally(rejected=10), None)
    assert policy.check(tally(rejected=11), None)
    assert policy.reason == "11 rows rejected, limits.max_rejected allows 10 of 100"


@pytest.mark.parametrize(
    ("limits", "begins", "lasts_s"),
    [
        ({"max_hours": 2.0}, datetime(2026, 1, 31, 22, 0), 2 * HOUR_S),
        ({"until": "07:00"}, datetime(2026, 1, 31, 22, 0), 9 * HOUR_S),
        ({"until": "07:00"}, datetime(2026, 1, 31, 7, 0), 24 * HOUR_S),
        ({"until": "07:00"}, datetime(2026, 1, 31, 6, 59), 60),
        ({"until": "07:00", "max_hours": 1.0}, datetime(2026, 1, 31, 2, 0), HOUR_S),
        ({"until": "07:00", "max_hours": 8.0}, datetime(2026, 1, 31, 2, 0), 5 * HOUR_S),
    ],
)
def test_the_earlier_of_both_deadlines_stops_it(
    tmp_path: Path, limits: dict[str, Any], begins: datetime, lasts_s: float
) -> None:
    clock = FakeClock(0.0, midnight=begins)
    policy = policy_of(tmp_path, clock, **limits)
    clock.advance(lasts_s - 1)
    assert not policy.check(tally(), None)
    clock.advance(1)
    assert policy.check(tally(), None) and policy.reason.startswith("the deadline ")


def until(root: Path, text: str, now: str, *, resumes: bool) -> Deadline:
    limits = make_job(root, limits__until=text).limits
    found = deadline(limits, datetime.fromisoformat(now), resumes=resumes)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "now", "resumes", "at"),
    [
        ("07:00 UTC", "2026-01-30T22:00:00+00:00", True, "2026-01-31T07:00:00+00:00"),
        ("07:00 UTC", "2026-01-31T07:00:05+00:00", True, "2026-01-31T07:00:00+00:00"),
        ("07:00 UTC", "2026-01-31T09:59:59+00:00", True, "2026-01-31T07:00:00+00:00"),
        ("07:00 UTC", "2026-01-31T10:00:00+00:00", True, "2026-02-01T07:00:00+00:00"),
        ("07:00 UTC", "2026-01-31T07:00:05+00:00", False, "2026-02-01T07:00:00+00:00"),
        ("07:00 Europe/Berlin", "2026-01-31T05:00:00+00:00", False, "2026-01-31T06:00:00+00:00"),
        ("07:00 Europe/Berlin", "2026-03-28T21:00:00+00:00", False, "2026-03-29T05:00:00+00:00"),  # the clocks change
        ("07:00 Asia/Tokyo", "2026-01-31T13:59:00-08:00", False, "2026-02-01T07:00:00+09:00"),
    ],
)
def test_a_deadline_is_in_its_time_zone_and_stays_where_it_was_when_a_scheduler_retries(
    tmp_path: Path, text: str, now: str, resumes: bool, at: str
) -> None:
    assert until(tmp_path, text, now, resumes=resumes).at == datetime.fromisoformat(at)


def test_a_retry_after_the_deadline_begins_nothing_and_says_why(tmp_path: Path) -> None:
    job = make_job(tmp_path, limits__until="07:00")
    policy = StopPolicy(
        job, 100, stop_requested=lambda: False, resumes=True, now=lambda: datetime(2026, 1, 31, 7, 0, 5)
    )
    assert policy.check(tally(), None)
    assert policy.reason.startswith("the deadline 07:00 (a run that resumes less than 3 hours after limits.until")


def test_a_stall_stops_it_and_says_what_replicas_are_doing(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, stall_s=60.0)
    assert not policy.check(tally(), Health(since_progress_s=60.0))
    assert policy.check(tally(), Health(since_progress_s=61.0, replicas=1))
    assert policy.reason == "no progress for 61 s: no replica has a unit"


def test_replicas_that_die_loading_one_after_the_other_stop_it_with_an_error(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, stall_s=600.0)
    most = policy.replicas_max + LOAD_DEATHS
    assert not policy.check(tally(), Health(loading=most - 1))
    assert policy.check(tally(), Health(loading=most)) and policy.reason == LOAD_DEATH
    assert policy.fatal is not None and policy.fatal.stage == "replica"


def test_a_store_that_refuses_stops_it_resumably_and_any_other_failure_with_an_error(tmp_path: Path) -> None:
    resumable = policy_of(tmp_path)
    resumable.record(Failure("AccessDenied", "no access", "commit", storage=True))
    assert resumable.check(tally(), None) and resumable.reason == "no access" and resumable.fatal is None
    fatal = policy_of(tmp_path)
    first, second = (Failure("EngineError", text, "replica") for text in ("first", "second"))
    fatal.record(first)
    fatal.record(second)
    assert fatal.check(tally(), None) and fatal.reason == "first" and fatal.fatal == first


def test_the_first_reason_counts(tmp_path: Path) -> None:
    clock = FakeClock()
    policy = policy_of(tmp_path, clock, max_hours=1.0, max_rejected=0)
    clock.advance(HOUR_S)
    policy.check(tally(), None)
    assert policy.check(tally(rejected=5), None) and policy.reason.startswith("the deadline")
