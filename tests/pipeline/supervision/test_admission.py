"""One replica warms up; the others load once it has answered, or once it is clear that it never will."""

from __future__ import annotations

from tests.clock import FakeClock
from unipic.pipeline.supervision.admission import LOAD_DEATH, LOAD_DEATHS, PATIENCE_S, Admission
from unipic.pipeline.supervision.failures import Failure


def test_one_replica_loads_first_and_the_others_wait_until_it_has_answered() -> None:
    admission = Admission(clock=FakeClock())
    assert (admission.request("one"), admission.request("two")) == ("warm up", "wait")
    admission.loaded(3.1)
    assert admission.request("two") == "wait"
    admission.passed("one row answered in 0.2 s")
    assert admission.report().message == "one replica loaded in 3.1 s, one row answered in 0.2 s"
    assert admission.report().open
    assert admission.request("two") == admission.request("three") == "load"


def test_an_actor_that_asks_again_has_died_and_may_die_a_few_times_while_it_loads() -> None:
    admission = Admission(clock=FakeClock())
    answers = [admission.request("one") for _ in range(LOAD_DEATHS + 1)]
    assert answers == ["warm up"] * LOAD_DEATHS + ["leave"]
    assert admission.request("two") == "leave"
    failure = admission.report().failure
    assert failure is not None and failure.message == LOAD_DEATH and failure.stage == "preflight"


def test_a_first_replica_that_dies_of_its_first_row_holds_nobody_up() -> None:
    admission = Admission(clock=FakeClock())
    admission.request("one")
    admission.loaded(1.0)
    assert admission.request("one") == "load"
    assert admission.report().open and "died of its first row" in admission.report().message
    assert admission.request("two") == "load"


def test_replicas_do_not_wait_for_ever_for_one_whose_node_is_lost() -> None:
    clock = FakeClock()
    admission = Admission(clock=clock)
    admission.request("lost")
    clock.advance(PATIENCE_S - 1)
    assert admission.request("two") == "wait"
    clock.advance(1)
    assert admission.request("two") == "load"


def test_a_model_that_cannot_load_turns_every_replica_away() -> None:
    admission = Admission(clock=FakeClock())
    admission.request("one")
    admission.failed(Failure("EngineError", "no such file", "preflight"))
    assert admission.request("one") == admission.request("two") == "leave"


def test_the_report_says_what_the_first_replica_is_doing_and_for_how_long() -> None:
    clock = FakeClock()
    admission = Admission(clock=clock)
    assert admission.report().activity == ""
    admission.request("one")
    clock.advance(20)
    assert admission.report().activity == "the first replica has been loading its model for 20 s"
    assert admission.report().answering_s is None
    admission.loaded(20.0)
    clock.advance(5)
    assert admission.report().activity == "the first replica has been answering its first row for 5 s"
    assert admission.report().answering_s == 5
