"""What the supervisor concludes from reports: who died of which rows, and whether there is progress."""

from __future__ import annotations

from tests.clock import FakeClock
from unipic.pipeline.supervision.failures import DEATHS_PER_ATTEMPT, Failure
from unipic.pipeline.supervision.supervisor import LIVE_S, Supervisor, UnitHistory


def test_a_unit_that_is_started_again_with_a_micro_batch_open_has_killed_its_replica() -> None:
    supervisor = Supervisor()
    supervisor.start_unit("a", "one")
    supervisor.attempt("a", (0, 4), "one")
    assert supervisor.start_unit("a", "two") == UnitHistory([(0, 4)])
    assert supervisor.crashes == 1


def test_a_unit_that_is_started_again_with_none_open_has_lost_the_replica_that_held_it() -> None:
    supervisor = Supervisor()
    assert supervisor.start_unit("a", "one") == UnitHistory([])
    assert supervisor.start_unit("a", "two") == UnitHistory([], deaths=1)
    assert supervisor.start_unit("a", "three") == UnitHistory([], deaths=2)
    supervisor.unit_returned("a")
    assert supervisor.start_unit("a", "four") == UnitHistory([])


def test_units_beside_one_whose_row_kills_the_replica_are_not_blamed() -> None:
    supervisor = Supervisor()
    for number in range(DEATHS_PER_ATTEMPT * 3):
        replica = f"host:{number}"
        assert [supervisor.start_unit(unit, replica) for unit in ("beside", "beneath")] == [UnitHistory([])] * 2
        supervisor.start_unit("deadly", replica)
        supervisor.attempt("deadly", (0, 4), replica)  # and dies; the order in which the three return is irrelevant
        if number % 2:
            supervisor.start_unit("deadly", f"host:{number + 1}")


def test_answers_reported_with_the_next_attempt_blame_no_unit() -> None:
    supervisor = Supervisor()
    for unit in ("a", "b"):
        supervisor.start_unit(unit, "one")
    supervisor.attempt("a", (0, 4), "one")
    supervisor.attempt("b", (0, 4), "one", [("a", (0, 4), 4)])
    assert (supervisor.rows_answered, supervisor.start_unit("a", "two")) == (4, UnitHistory([]))
    assert supervisor.start_unit("b", "two") == UnitHistory([(0, 4)])
    supervisor.attempt("b", (0, 2), "two")
    supervisor.record_answers([("b", (0, 2), 2)])
    assert (supervisor.rows_answered, supervisor.start_unit("b", "two")) == (6, UnitHistory([(0, 4)]))


def test_a_task_that_begins_a_unit_again_has_died_of_it() -> None:
    supervisor = Supervisor()
    assert [supervisor.begin_task("a", "prepare") for _ in range(3)] == [0, 1, 2]
    assert supervisor.begin_task("a", "commit") == 0
    supervisor.unit_returned("a")
    assert supervisor.begin_task("a", "prepare") == 0


def test_a_stopping_run_begins_no_unit_and_lets_those_in_flight_finish() -> None:
    supervisor = Supervisor()
    supervisor.begin_task("a", "prepare")
    supervisor.stop()
    assert supervisor.begin_task("b", "prepare") is None
    assert supervisor.start_unit("a", "one") is None
    assert supervisor.request_load("one") == "leave"
    assert supervisor.begin_task("a", "commit") == 0


def test_a_failed_warm_up_stops_the_run() -> None:
    supervisor = Supervisor()
    supervisor.request_load("one")
    supervisor.warmup_failed(Failure("EngineError", "broken", "preflight"))
    assert supervisor.stop_requested and supervisor.health().admission.failure is not None


def test_loading_again_and_answering_again_is_no_progress() -> None:
    clock = FakeClock()
    supervisor = Supervisor(clock=clock)
    supervisor.start_unit("a", "one")
    supervisor.attempt("a", (0, 4), "one")
    supervisor.answered("a", (0, 4), 4)
    for replica in ("two", "three"):
        clock.advance(100)
        supervisor.replica_loading(replica)
        supervisor.replica_loaded(replica)
        supervisor.start_unit("a", replica)
        supervisor.attempt("a", (0, 4), replica)
        supervisor.answered("a", (0, 4), 4)
    assert supervisor.health().since_progress_s == 200
    assert supervisor.rows_answered == 4
    supervisor.answered("a", (4, 8), 4)
    assert supervisor.health().since_progress_s == 0


def test_replicas_that_are_not_heard_of_any_more_are_not_counted_as_live() -> None:
    clock = FakeClock()
    supervisor = Supervisor(clock=clock)
    supervisor.replica_loaded("of an earlier wave")
    clock.advance(LIVE_S)
    supervisor.replica_loaded("new")
    assert supervisor.health().replicas == 2
    for _ in range(3):
        clock.advance(LIVE_S)
        supervisor.replica_alive("new")
    assert supervisor.health().replicas == 1


def test_replicas_that_died_are_not_counted_as_live() -> None:
    supervisor = Supervisor()
    supervisor.replica_loaded("one")
    supervisor.start_unit("a", "one")
    supervisor.replica_loaded("two")
    supervisor.start_unit("a", "two")
    assert supervisor.health().replicas == 1
