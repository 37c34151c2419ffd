"""What counts as a stall, and how a stalled run says who is doing what."""

from __future__ import annotations

from tests.clock import FakeClock
from unipic.pipeline.supervision.supervisor import Supervisor


def test_a_micro_batch_within_its_own_limit_is_no_stall_however_slow() -> None:
    clock = FakeClock()
    supervisor = Supervisor(clock=clock)
    supervisor.start_unit("a", "one")
    supervisor.attempt("a", (0, 4), "one")
    clock.advance(900)
    assert supervisor.health().since_progress_s == 900
    assert supervisor.health().stalled_s(batch_timeout_s=1000) == 0
    clock.advance(150)  # its replica should be dead by now; the next one has as much time as ever
    assert supervisor.health().stalled_s(batch_timeout_s=1000) == 50
    supervisor.start_unit("a", "two")
    assert supervisor.health().stalled_s(batch_timeout_s=1000) == 0


def test_the_warm_up_row_has_the_limit_of_a_micro_batch_too() -> None:
    clock = FakeClock()
    supervisor = Supervisor(clock=clock)
    supervisor.request_load("one")
    supervisor.warmup_loaded(1.0)
    clock.advance(900)
    assert supervisor.health().stalled_s(batch_timeout_s=1000) == 0
    assert supervisor.health().stalled_s(batch_timeout_s=100) == 800


def test_a_stall_says_what_replicas_are_doing() -> None:
    clock = FakeClock()
    supervisor = Supervisor(clock=clock)
    assert supervisor.health().activity() == "no replica is up, 0 are loading"
    supervisor.request_load("one")
    assert supervisor.health().activity() == "the first replica has been loading its model for 0 s"
    supervisor.warmup_loaded(1.0)
    assert supervisor.health().activity() == "the first replica has been answering its first row for 0 s"
    supervisor.warmup_passed("one row answered")
    supervisor.attempt("u-0", (2, 4), "host:1")
    clock.advance(7)
    assert supervisor.health().activity() == "host:1 has been working on rows 2 to 3 of unit u-0 for 7 s"


def test_a_stall_names_the_replica_that_holds_a_unit_with_nothing_on_its_device() -> None:
    supervisor = Supervisor()
    supervisor.start_unit("u-0", "host:1")
    assert supervisor.health().activity() == "host:1 has unit u-0, with no row on the device"
