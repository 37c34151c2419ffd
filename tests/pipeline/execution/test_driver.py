"""The driver's loop around an executor that a test controls: what is counted, deferred, reported, and when it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import make_job
from unipic.pipeline.errors import AccessDenied, EngineError
from unipic.pipeline.execution.blocks import Outcome
from unipic.pipeline.execution.driver import Driver
from unipic.pipeline.execution.progress import Progress
from unipic.pipeline.execution.reporter import Reporter
from unipic.pipeline.execution.stop_policy import StopPolicy
from unipic.pipeline.execution.tally import Tally
from unipic.pipeline.execution.work_queue import UNIT_ATTEMPTS, WorkQueue
from unipic.pipeline.records import ManifestFile, Receipt, Unit
from unipic.pipeline.supervision.admission import AdmissionReport
from unipic.pipeline.supervision.failures import Failure, RayLost
from unipic.pipeline.supervision.health import Health

FILE = ManifestFile("m/a.parquet", "a.parquet", 1000, 1, "")
UNITS = [Unit(FILE, first_row=8 * at, rows=8) for at in range(4)]
WARM = Health(replicas=1, admission=AdmissionReport(open=True, message="one replica loaded in 1.0 s"))
UNAVAILABLE = Failure("StorageUnavailable", "503", "commit", retryable=True, storage=True)


def receipt(unit: Unit) -> Receipt:
    return Receipt(unit.id, FILE.name, unit.first_row, unit.rows, unit.rows, 0, (), "")


@dataclass
class Scripted:
    """Gives each unit the outcomes in `script`, one an attempt, then receipts.

    Attributes:
        error: raised when the first wave is iterated.
        hold: outcomes wait for it.
        lost: Ray is gone.
        stopped: set by `stop`.
    """

    script: dict[str, list[Outcome]] = field(default_factory=dict)
    state: Health = WARM
    error: BaseException | None = None
    hold: threading.Event | None = None
    lost: RayLost | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    waves: list[list[str]] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)

    def outcomes(self, units: Sequence[Unit], *, careful: bool) -> Iterator[Outcome]:
        self.waves.append([unit.id for unit in units])
        if self.error is not None:
            raise self.error
        for unit in units:
            if self.hold is not None:
                self.hold.wait()
            coming = self.script.get(unit.id, [])
            yield coming.pop(0) if coming else Outcome(unit, receipt(unit))

    def health(self) -> Health:
        return self.state

    def check(self, wait_s: float = 0.0) -> None:
        if self.lost is not None:
            raise self.lost

    def stop(self) -> None:
        self.stopped.set()

    def unit_committed(self, unit: str) -> None:
        self.told.append(("committed", unit))

    def unit_returned(self, unit: str) -> None:
        self.told.append(("returned", unit))


@dataclass
class Setting:
    """A driver and what it is made of."""

    driver: Driver
    executor: Scripted
    tally: Tally
    policy: StopPolicy
    reports: list[Progress]


def setting(
    root: Path, executor: Scripted, stop: threading.Event | None = None, grace_s: float = 20.0, **limits: Any
) -> Setting:
    job = make_job(root, **{f"limits__{name}": value for name, value in limits.items()})
    tally = Tally(rows_total=8 * len(UNITS), units_total=len(UNITS))
    policy = StopPolicy(job, tally.rows_total, stop_requested=(stop or threading.Event()).is_set)
    reports: list[Progress] = []
    reporter = Reporter(reports.append, tally, policy)
    driver = Driver(executor, WorkQueue(UNITS), tally, policy, reporter, grace_s=grace_s)
    return Setting(driver, executor, tally, policy, reports)


def test_every_receipt_is_counted_and_its_unit_forgotten(tmp_path: Path) -> None:
    here = setting(tmp_path, Scripted())
    here.driver.drive()
    assert (here.tally.units_done, here.tally.ok, here.policy.reason) == (4, 32, "")
    assert here.executor.told == [("committed", unit.id) for unit in UNITS]


def test_reports_go_from_starting_to_running_and_say_once_how_the_warm_up_went(tmp_path: Path) -> None:
    hold = threading.Event()
    executor = Scripted(state=Health(), hold=hold)
    here = setting(tmp_path, executor)

    def hear(progress: Progress) -> None:
        here.reports.append(progress)
        executor.state = WARM
        if progress.stage == "running":
            hold.set()

    here.driver.reporter.on_progress = hear
    here.driver.drive()
    assert [one.stage for one in here.reports[:2]] == ["starting", "running"]
    assert here.reports[-1].notes == ("one replica loaded in 1.0 s",)


def test_a_unit_whose_failure_may_be_temporary_is_deferred_with_a_note_and_counted_once(tmp_path: Path) -> None:
    failed = Outcome(UNITS[1], failure=UNAVAILABLE)
    here = setting(tmp_path, Scripted({UNITS[1].id: [failed]}))
    here.driver.drive()
    assert here.executor.waves == [[unit.id for unit in UNITS], [UNITS[1].id]]
    assert here.tally.units_done == 4 and ("returned", UNITS[1].id) in here.executor.told
    assert "deferred until the other units are done: 503" in here.driver.reporter.notes


def test_a_unit_that_fails_every_time_stops_the_run_after_all_others_are_done(tmp_path: Path) -> None:
    failed = [Outcome(UNITS[1], failure=UNAVAILABLE) for _ in range(UNIT_ATTEMPTS)]
    here = setting(tmp_path, Scripted({UNITS[1].id: failed}))
    here.driver.drive()
    assert here.tally.units_done == 3
    assert here.policy.storage_failure == UNAVAILABLE and here.policy.fatal is None


def test_a_run_that_is_asked_to_stop_before_it_begins_begins_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    here = setting(tmp_path, Scripted(), stop)
    here.driver.drive()
    assert here.executor.waves == [] and here.policy.reason == "asked to stop"


class FinishesWhenStopped(Scripted):
    def stop(self) -> None:
        super().stop()
        assert self.hold is not None
        self.hold.set()


def test_a_stop_lets_units_in_flight_finish(tmp_path: Path) -> None:
    stop = threading.Event()
    here = setting(tmp_path, FinishesWhenStopped(hold=threading.Event()), stop)
    here.driver.reporter.on_progress = lambda _: stop.set()
    here.driver.drive()
    assert here.executor.stopped.is_set() and here.tally.units_done == 4
    assert here.policy.reason == "asked to stop"


@pytest.mark.parametrize(("state", "grace_s"), [(WARM, 0.0), (Health(), 60.0)])
def test_the_grace_ends_and_before_the_warm_up_there_is_none(tmp_path: Path, state: Health, grace_s: float) -> None:
    hold = threading.Event()
    here = setting(tmp_path, Scripted(state=state, hold=hold), grace_s=grace_s, max_hours=1e-9)
    here.policy.deadline = None
    here.driver.reporter.on_progress = lambda _: setattr(here.policy, "stop_requested", lambda: True)
    here.driver.drive()
    assert here.tally.units_done == 0 and here.policy.reason == "asked to stop"
    hold.set()


def test_a_warm_up_that_failed_is_known_even_where_every_unit_came_back_first(tmp_path: Path) -> None:
    failure = Failure("EngineError", "no such file", "preflight")
    untouched = {unit.id: [Outcome(unit)] for unit in UNITS}
    here = setting(tmp_path, Scripted(untouched, state=Health(admission=AdmissionReport(failure=failure))))
    here.driver.drive()
    assert here.policy.fatal == failure and here.policy.reason == "no such file"


def test_an_error_of_ray_is_told_in_our_words_and_our_own_errors_as_they_are(tmp_path: Path) -> None:
    ours = setting(tmp_path, Scripted(error=AccessDenied("no access to the output")))
    with pytest.raises(AccessDenied, match="no access to the output"):
        ours.driver.drive()
    theirs = setting(tmp_path, Scripted(error=RuntimeError("actor pool is gone")))
    with pytest.raises(EngineError, match="Ray ended the run: RuntimeError: actor pool is gone"):
        theirs.driver.drive()


def test_a_ray_that_is_gone_ends_the_run_though_no_outcome_ever_comes(tmp_path: Path) -> None:
    hold = threading.Event()
    here = setting(tmp_path, Scripted(hold=hold, lost=RayLost("Ray's raylet process has ended")))
    with pytest.raises(RayLost, match="raylet process has ended") as caught:
        here.driver.drive()
    assert caught.value.retryable
    hold.set()


def test_while_the_first_replica_loads_a_report_says_for_how_long(tmp_path: Path) -> None:
    loading = Health(admission=AdmissionReport(activity="the first replica has been loading its model for 7 s"))
    here = setting(tmp_path, Scripted(state=loading))
    here.driver.drive()
    assert here.reports[0].activity == "the first replica has been loading its model for 7 s"
