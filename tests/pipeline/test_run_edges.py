"""How a run ends when it does not end well: never green with work left, never for ever, never without words.

Most of it drives the real stages and the real driver in this process; a death is an exception that passes every
`except Exception`, and "Ray" is a loop that does a dead worker's unit again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes import FakeEngine, all_rows, make_job, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import EngineError
from unipic.pipeline.execution import driver as driving
from unipic.pipeline.execution import graph
from unipic.pipeline.execution.driver import UNIT_TRIES, Driver
from unipic.pipeline.execution.exclusive import SideBySide
from unipic.pipeline.execution.graph import FusedStage, Outcome, ReplicaStage, finish_stage, prepare_stage
from unipic.pipeline.execution.progress import Result
from unipic.pipeline.job import Job
from unipic.pipeline.preflight import preflight
from unipic.pipeline.records import Unit
from unipic.pipeline.stages.engine import MakeEngine
from unipic.pipeline.storage.storage import Storage
from unipic.pipeline.supervision.failures import LOSSES, Failure
from unipic.pipeline.supervision.supervisor import Start, Supervisor


class Died(BaseException):
    """The process is gone."""


class Handle:
    """A supervisor in this process behind the face of a Ray actor's handle."""

    def __init__(self) -> None:
        self.supervisor = Supervisor()

    def __getattr__(self, verb: str) -> Any:
        return SimpleNamespace(remote=getattr(self.supervisor, verb))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver asks the supervisor directly."""
    monkeypatch.setattr(driving, "ask_vitals", lambda handle: handle.supervisor.vitals())
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_actor_id=lambda: "one"))


def driver_of(job: Job, stop: threading.Event | None = None, *, retry: bool = False) -> Driver:
    context, manifest, ledger = preflight(job, Storage(job.storage))
    record, manifest = ledger.open(job, manifest, context.checkpoint_digest)
    ledger.sweep()
    driver = Driver(context, manifest, ledger, record.rows_per_unit, lambda _: None, stop or threading.Event())
    if retry:
        driver.take_back(list(ledger.retries(manifest.files)))
    return driver


def drive(
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    came: Callable[..., Iterator[Outcome]],
    make_engine: MakeEngine = FakeEngine,
) -> Result:
    """The driver's own loop, around `came` instead of Ray's."""
    monkeypatch.setattr(driving, "outcomes", came)
    driver.drive(Handle(), make_engine)
    return driver.result()


def nothing_comes(*_: object) -> Iterator[Outcome]:
    return iter(())


def comes_back_as(failure: Failure | None) -> Callable[..., Iterator[Outcome]]:
    def came(units: Sequence[Unit], *_: object) -> Iterator[Outcome]:
        return (Outcome(unit, None, failure) for unit in units)

    return came


# --- a run that stopped, or was ended, with work left -----------------------------------------------------------------


@pytest.fixture
def done_with_rejects(tmp_path: Path) -> Job:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "raise", *(f"row {n}" for n in range(18))])
    job = make_job(tmp_path)
    run_here(job)
    return job


def asked(job: Job) -> tuple[Job, bool, Failure | None]:
    return job, True, None


def deadline(job: Job) -> tuple[Job, bool, Failure | None]:
    limits = job.limits.model_copy(update={"max_hours": 1e-9})
    return job.model_copy(update={"limits": limits}), False, None


def denied(job: Job) -> tuple[Job, bool, Failure | None]:
    return job, False, Failure("AccessDenied", "no access to the output", "finish", storage=True)


@pytest.mark.parametrize("reason", [asked, deadline, denied])
def test_a_retry_that_was_stopped_says_so_whatever_receipts_were_there_before(
    reason: Callable[[Job], tuple[Job, bool, Failure | None]],
    done_with_rejects: Job,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, set_stop, failure = reason(done_with_rejects)
    stop = threading.Event()
    if set_stop:
        stop.set()
    result = drive(driver_of(job, stop, retry=True), monkeypatch, comes_back_as(failure))
    assert (result.outcome, result.ok, result.rejected) == ("stopped", 19, 1)
    assert result.message
    assert result.earlier == 20  # none of them is this run's


def test_a_retry_stopped_over_rows_that_were_too_many_before_is_stopped_and_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["", "raise", "c"])
    job = make_job(tmp_path, limits__max_rejected=0)
    run_here(job)
    stop = threading.Event()
    stop.set()
    assert drive(driver_of(job, stop, retry=True), monkeypatch, comes_back_as(None)).outcome == "stopped"


@pytest.mark.parametrize(
    ("retry", "words"),
    [
        (False, "no word of why, and is not done: 3 of 3 units have no receipt, 20 rows are not accounted for"),
        (True, "no word of why, and is not done: 1 of 3 units still have rejected rows to try again"),
    ],
)
def test_an_executor_that_ends_in_silence_with_units_left_is_an_error(
    retry: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "raise", *(f"row {n}" for n in range(18))])
    job = make_job(tmp_path)
    if retry:
        run_here(job)
    with pytest.raises(EngineError, match=words):
        drive(driver_of(job, retry=retry), monkeypatch, nothing_comes)


def test_a_run_that_was_stopped_when_another_run_had_done_its_work_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path)
    stop = threading.Event()
    stop.set()
    driver = driver_of(job, stop)
    run_here(job)
    assert drive(driver, monkeypatch, comes_back_as(None)).outcome == "done"


# --- workers that die of a unit outside its micro-batches -------------------------------------------------------------


class Deadly:
    """Stands in front of a function, and dies of some units."""

    def __init__(self, real: Callable[..., Any], deadly: Callable[[Unit], bool]) -> None:
        self.real, self.deadly, self.deaths = real, deadly, 0

    def __call__(self, unit: Unit, *rest: Any) -> Any:
        if self.deadly(unit):
            self.deaths += 1
            raise Died
        return self.real(unit, *rest)


def like_ray(job: Job) -> Callable[..., Iterator[Outcome]]:
    """The real stages, one unit at a time; whatever dies is started anew with the same unit, for ever."""

    def until_alive(work: Callable[[], Any]) -> Any:
        while True:
            try:
                return work()
            except Died:
                continue

    def came(units: Sequence[Unit], context: RunContext, handle: Handle, make_engine: Any) -> Iterator[Outcome]:
        door = handle.supervisor
        ever: list[Any] = []  # kept, so that no two replicas have one name
        fused = job.compute.layout == "fused"

        def on_replica(batch: Any) -> Any:
            def anew() -> Any:
                ever.append((FusedStage if fused else ReplicaStage)(context, door, make_engine, units[0]))
                return ever[-1](batch)

            return until_alive(anew)

        for unit in units:
            batch = graph._travel(unit.to_json(), None)
            if not fused:
                batch = until_alive(lambda batch=batch: prepare_stage(batch, context, door))  # type: ignore[misc]
            batch = on_replica(batch)
            if not fused:
                batch = until_alive(lambda batch=batch: finish_stage(batch, context, door))  # type: ignore[misc]
            yield from (graph._outcome(row) for row in batch.to_pylist())

    return came


class DiesAnswered(FakeEngine):
    """Answers all rows, and dies before the unit is packed."""

    doomed = False
    deaths = 0

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        self.doomed |= any(row["prompt"] == "row 13" for row in rows)
        return super().answer(rows)

    def facts(self) -> dict[str, Any]:
        if self.doomed:
            DiesAnswered.deaths += 1
            raise Died
        return super().facts()


@pytest.mark.parametrize(
    ("place", "layout", "words"),
    [
        ("prepare", "staged", "read and decoded"),
        ("answered", "staged", "held"),
        ("finish", "staged", "encoded and wrote"),
        ("prepare", "fused", "held"),
        ("finish", "fused", "held"),
    ],
)
def test_a_unit_that_kills_whoever_works_on_it_ends_the_run_by_name_when_all_else_is_done(
    place: str, layout: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"row {n}" for n in range(20)])
    job = make_job(tmp_path, compute__layout=layout)
    make_engine: MakeEngine = FakeEngine
    if place == "answered":
        make_engine = DiesAnswered
        monkeypatch.setattr(DiesAnswered, "deaths", 0)
    else:
        deadly = Deadly(getattr(graph, place), lambda unit: unit.first_row == 8)
        monkeypatch.setattr(graph, place, deadly)
    driver = driver_of(job)
    with pytest.raises(EngineError, match=rf"a\.parquet, rows 8 to 15: 3 processes died while they {words} this unit"):
        drive(driver, monkeypatch, like_ray(job), make_engine)
    assert (DiesAnswered.deaths if place == "answered" else deadly.deaths) == LOSSES * UNIT_TRIES
    assert len(all_rows(job)) == 12
    assert any("put off until all else is done: a.parquet, rows 8 to 15" in note for note in driver.notes)


def test_a_unit_that_costs_a_few_workers_is_done_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"row {n}" for n in range(20)])
    job = make_job(tmp_path)
    for place in ("prepare", "finish"):
        deadly = Deadly(getattr(graph, place), lambda _: False)
        deadly.deadly = lambda unit, deadly=deadly: unit.first_row == 8 and deadly.deaths < LOSSES - 1  # type: ignore[misc]
        monkeypatch.setattr(graph, place, deadly)
    assert drive(driver_of(job), monkeypatch, like_ray(job)).outcome == "done"
    assert verify(job.output.uri, Storage()).ok


def test_units_beside_one_that_kills_its_replica_by_a_row_are_not_given_up() -> None:
    supervisor = Supervisor()
    for number in range(LOSSES * 3):
        replica = f"host:{number}"
        assert [supervisor.start(unit, replica) for unit in ("beside", "beneath")] == [Start([])] * 2
        supervisor.start("deadly", replica)
        supervisor.attempt("deadly", (0, 4), replica)  # and dies; which of the three comes again first is no matter
        if number % 2:
            supervisor.start("deadly", f"host:{number + 1}")


def test_a_unit_that_was_lost_is_taken_up_alone_and_then_it_is_known_who_is_deadly() -> None:
    supervisor = Supervisor()
    for unit in ("a", "b"):
        assert supervisor.start(unit, "one") == Start([])
    for unit in ("a", "b"):
        assert supervisor.start(unit, "two") == Start([], lost=1)  # not yet taken up
    assert supervisor.start("a", "two", alone=True) == Start([], lost=1)
    assert supervisor.start("b", "three") == Start([], lost=1)  # it waited while "two" died of "a"
    assert supervisor.start("a", "three") == Start([], lost=2)
    supervisor.came_back("a")
    assert supervisor.start("a", "four") == Start([])


def test_who_asks_to_be_alone_waits_for_those_inside_and_lets_nobody_in_after_it() -> None:
    units, said = SideBySide(), list[str]()
    inside, leave, waiting = threading.Event(), threading.Event(), threading.Event()

    def shares() -> None:
        with units.enter():
            inside.set()
            leave.wait()
            said.append("shared")

    def is_alone() -> None:
        waiting.set()
        with units.enter(alone=True):
            said.append("alone")

    def comes_late() -> None:
        with units.enter():
            said.append("late")

    threads = [threading.Thread(target=body) for body in (shares, is_alone, comes_late)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    while not units.closed:
        waiting.wait()
    threads[2].start()
    leave.set()
    for thread in threads:
        thread.join()
    assert said == ["shared", "alone", "late"]
