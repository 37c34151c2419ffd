"""Runs, prunes, repairs and compactions that overlap, sleep and die in any order, against `promises.py`."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.chaos.cast import Purpose
from tests.chaos.stage import DRIVERS, TALLY, WORKERS, Stage
from tests.chaos.stepped_storage import ORDERS

KINDS = ("s3", "disk", "weak s3", "weak disk")
PURPOSES = (
    Purpose(),
    Purpose(),
    Purpose(redo=True),
    Purpose(redo=True),
    Purpose(retry=True),
    Purpose(retry=True, redo=True),
    Purpose(prune=True),
    Purpose(repair=True),
    Purpose(compact=True),
    Purpose(compact=True),
    Purpose(compact=True),
)
EXAMPLES, STEPS = 340, 80
ANY = st.integers(0, 11)
ROWS = st.integers(1, 4)
NAMES = st.sampled_from(["a", "b", "c"])
REJECTS = st.frozensets(st.integers(0, 3), max_size=2)
A_FEW = st.sampled_from([1, 1, 2, 3, 5, 8, 13, 40])


class Processes(RuleBasedStateMachine):
    """Each step starts, moves, strikes or ends one process, or changes the manifest."""

    @initialize(kind=st.sampled_from(KINDS), rows=ROWS, rows_per_unit=st.integers(1, 3), whole=st.booleans())
    def begin(self, kind: str, rows: int, rows_per_unit: int, whole: bool) -> None:
        self.stage = Stage(kind, rows_per_unit=rows_per_unit)
        self.stage.write("a", rows)
        if whole:  # there is much to take back, to merge and to make again
            self.stage.write("b", 4)
            self.stage.write("c", 3)
            self.stage.run_quietly(Purpose())

    @rule(purpose=st.sampled_from(PURPOSES), other=st.integers(0, 9).map(lambda n: n == 9))
    @precondition(lambda self: len(self.stage.live_drivers()) < DRIVERS)
    def start_a_driver(self, purpose: Purpose, other: bool) -> None:
        TALLY["steps"] += 1
        there = self.stage.live_drivers()
        if not there or not (purpose.repair or any(driver.purpose.repair for driver in there)):  # a repair refuses
            self.stage.start(purpose, other=other)

    @rule(which=ANY, rejects=REJECTS)
    @precondition(lambda self: self._queues() and len(self.stage.live_workers()) < WORKERS)
    def start_a_worker(self, which: int, rejects: frozenset[int]) -> None:
        TALLY["steps"] += 1
        queues = self._queues()
        self.stage.assign(queues[which % len(queues)], rejects)

    @rule(which=ANY, times=A_FEW)
    @precondition(lambda self: self.stage.alive)
    def go_on(self, which: int, times: int) -> None:
        TALLY["steps"] += 1
        actor = self.stage.alive[which % len(self.stage.alive)]
        for _ in range(times):
            if actor in self.stage.alive:
                self.stage.advance(actor)

    @rule(which=ANY, times=A_FEW)
    @precondition(lambda self: self.stage.live_workers())
    def a_worker_goes_on(self, which: int, times: int) -> None:
        workers = self.stage.live_workers()
        self.go_on(self.stage.alive.index(workers[which % len(workers)].actor), times)

    @rule(which=ANY, order=st.sampled_from(ORDERS))
    @precondition(lambda self: self.stage.alive)
    def a_request_fails(self, which: int, order: str) -> None:
        TALLY["steps"] += 1
        self.stage.advance(self.stage.alive[which % len(self.stage.alive)], order)

    @rule(which=ANY)
    @precondition(lambda self: any(driver.held for driver in self.stage.live_drivers()))
    def a_driver_gives_a_worker_up(self, which: int) -> None:
        TALLY["steps"] += 1
        held = [worker for driver in self.stage.live_drivers() for worker in driver.held]
        held[which % len(held)].driver.give_up(held[which % len(held)])

    @rule(which=ANY)
    @precondition(lambda self: self.stage.actors and any(actor.alive for actor in self.stage.actors))
    def a_process_dies(self, which: int) -> None:
        TALLY["steps"] += 1
        there = [actor for actor in self.stage.actors if actor.alive]
        self.stage.kill(there[which % len(there)])

    @rule(name=NAMES, rows=ROWS)
    def a_manifest_file_is_written(self, name: str, rows: int) -> None:
        TALLY["steps"] += 1
        self.stage.write(name, rows)

    @rule(which=ANY)
    def a_manifest_file_goes_or_comes_back(self, which: int) -> None:
        TALLY["steps"] += 1
        self.stage.hide(sorted(self.stage.rows)[which % len(self.stage.rows)])

    @rule(which=ANY, gone=st.booleans())
    @precondition(lambda self: not self.stage.live_drivers())
    def a_file_is_damaged(self, which: int, gone: bool) -> None:
        TALLY["steps"] += 1
        self.stage.damage(which, gone=gone)

    def _queues(self) -> list[object]:
        return [driver for driver in self.stage.live_drivers() if driver.queue]

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            try:
                self.stage.finish()
                TALLY["commits"] += self.stage.promises.commits
                TALLY["packs"] += self.stage.promises.packs
                TALLY["examples"] += 1
            finally:
                self.stage.close()


def check(machine: type[Processes], *, examples: int, steps: int) -> None:
    """Raises what breaks, with every request that led there."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],  # the requests are printed, and tell more than a shorter example
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_few_hundred_steps_of_overlapping_processes_break_no_promise() -> None:
    check(Processes, examples=8, steps=40)


@pytest.mark.slow
def test_twenty_thousand_steps_of_overlapping_processes_break_no_promise() -> None:
    before = TALLY["steps"]
    check(Processes, examples=EXAMPLES, steps=STEPS)
    print(", ".join(f"{count:,} {what}" for what, count in sorted(TALLY.items())))
    assert TALLY["steps"] - before >= 20_000
