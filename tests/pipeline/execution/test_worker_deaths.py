"""Workers that die of a unit outside its micro-batches: the unit is deferred, then it ends the run by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeEngine, all_rows, make_job, write_prompts
from tests.inprocess import run_here
from tests.pipeline.execution.inprocess import Died, InProcess
from tests.tables import grey_png
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import EngineError
from unipic.pipeline.execution import ray_stages
from unipic.pipeline.execution.conclusion import conclude, raise_fatal
from unipic.pipeline.execution.driver import Driver
from unipic.pipeline.execution.progress import Result
from unipic.pipeline.execution.reporter import Reporter
from unipic.pipeline.execution.stop_policy import StopPolicy
from unipic.pipeline.job import Job
from unipic.pipeline.output.claims import claim
from unipic.pipeline.output.recovery import recover
from unipic.pipeline.preflight import preflight
from unipic.pipeline.records import Unit
from unipic.pipeline.run import publish_the_rest, reconciled, what_is_left
from unipic.pipeline.stages import parts
from unipic.pipeline.stages import prepare as preparing
from unipic.pipeline.stages.engine import MakeEngine
from unipic.pipeline.storage.storage import Storage
from unipic.pipeline.supervision.failures import DEATHS_PER_ATTEMPT


class Run:
    """A run of `job` with its stages in this process."""

    def __init__(self, job: Job, make_engine: MakeEngine = FakeEngine, *, retry_rejected: bool = False) -> None:
        context, manifest, ledger = preflight(job, Storage(job.storage))
        record, manifest = claim(ledger, job, manifest, context.checkpoint_digest)
        known = ledger.snapshot(record)
        recover(ledger, known)
        self.work = what_is_left(context, manifest, ledger, known, retry_rejected=retry_rejected)
        self.stop = threading.Event()
        self.policy = StopPolicy(job, self.work.tally.rows_total, stop_requested=self.stop.is_set)
        self.reporter = Reporter(lambda _: None, self.work.tally, self.policy)
        self.executor = InProcess(context, make_engine)

    def drive(self) -> Result:
        work = self.work
        Driver(self.executor, work.queue, work.tally, self.policy, self.reporter, grace_s=20.0).drive()
        if self.policy.fatal is not None:
            raise_fatal(self.policy.fatal)
        published = publish_the_rest(work, self.policy, self.reporter)
        seen = reconciled(work)
        return conclude(
            work.tally, self.policy, seen, published=published, seconds=1.0, output=work.context.job.output.uri
        )


class Deadly:
    """Stands in front of a stage's function, and dies of some units."""

    def __init__(self, real: Callable[..., Any], deadly: Callable[[Unit], bool]) -> None:
        self.real, self.deadly, self.deaths = real, deadly, 0

    def __call__(self, unit: Unit, *rest: Any) -> Any:
        if self.deadly(unit):
            self.deaths += 1
            raise Died
        return self.real(unit, *rest)


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


@pytest.mark.parametrize("layout", ["staged", "fused"])
def test_a_unit_that_kills_its_replica_ends_the_run_by_name_when_all_else_is_done(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"row {n}" for n in range(20)])
    job = make_job(tmp_path, compute__layout=layout)
    monkeypatch.setattr(DiesAnswered, "deaths", 0)
    run = Run(job, DiesAnswered)
    with pytest.raises(EngineError, match=r"a\.parquet, rows 8 to 15: 3 processes died while they held this unit"):
        run.drive()
    assert DiesAnswered.deaths == 2 * DEATHS_PER_ATTEMPT
    assert len(all_rows(job)) == 12
    notes = run.reporter.notes
    assert any("deferred until the other units are done: a.parquet, rows 8 to 15" in note for note in notes)


DEADLY = (9, 14)


def dies_of(real: Callable[..., Any], deadly: Callable[..., bool]) -> Callable[..., Any]:
    def stand_in(*arguments: Any, **named: Any) -> Any:
        if deadly(*arguments, **named):
            raise Died
        return real(*arguments, **named)

    return stand_in


@pytest.mark.parametrize("layout", ["staged", "fused"])
@pytest.mark.parametrize("rows", [DEADLY[:1], DEADLY])
def test_rows_that_kill_the_process_that_encodes_them_are_rejected_and_their_neighbours_delivered(
    rows: tuple[int, ...], layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"row {n}" for n in range(20)])
    calm, job = (make_job(tmp_path, compute__layout=layout, output__uri=str(tmp_path / name)) for name in ("calm", "o"))
    run_here(calm)
    deadly = {f"row {n}" for n in rows}
    monkeypatch.setattr(parts, "encode", dies_of(parts.encode, lambda *_, facts, **__: facts["prompt"] in deadly))
    assert Run(job).drive().outcome == "done"
    assert {(row["id"], row["rejection"]["kind"]) for row in all_rows(job, "rejected")} == {
        (f"a-{n}", "WorkerCrashed") for n in rows
    }
    assert all_rows(job) == [row for row in all_rows(calm) if row["prompt"] not in deadly]
    assert verify(job.output.uri, Storage()).ok


@pytest.mark.parametrize("layout", ["staged", "fused"])
@pytest.mark.parametrize("rows", [DEADLY[:1], DEADLY])
def test_rows_that_kill_the_process_that_decodes_them_are_rejected_and_their_neighbours_delivered(
    rows: tuple[int, ...], layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [grey_png(n) for n in range(20)]
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"row {n}" for n in range(20)], image=images)
    job = make_job(tmp_path, "caption", compute__layout=layout, input__columns={"id": "id", "image": "image"})
    deadly = {images[n] for n in rows}
    monkeypatch.setattr(preparing, "decode", dies_of(preparing.decode, lambda data, *_: data in deadly))
    assert Run(job).drive().outcome == "done"
    assert {(row["id"], row["rejection"]["kind"]) for row in all_rows(job, "rejected")} == {
        (f"a-{n}", "WorkerCrashed") for n in rows
    }
    assert len(all_rows(job)) == 20 - len(rows)
    assert verify(job.output.uri, Storage()).ok


def test_a_unit_that_costs_a_few_workers_is_done_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"row {n}" for n in range(20)])
    job = make_job(tmp_path)
    for place in ("prepare", "commit"):
        deadly = Deadly(getattr(ray_stages, place), lambda _: False)
        deadly.deadly = lambda unit, d=deadly: unit.first_row == 8 and d.deaths < DEATHS_PER_ATTEMPT - 1
        monkeypatch.setattr(ray_stages, place, deadly)
    assert Run(job).drive().outcome == "done"
    assert verify(job.output.uri, Storage()).ok


# --- a run that was stopped with work left ----------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["asked", "deadline"])
def test_a_retry_that_was_stopped_says_so_whatever_receipts_were_there_before(tmp_path: Path, reason: str) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "raise", *(f"row {n}" for n in range(18))])
    run_here(make_job(tmp_path))
    run = Run(make_job(tmp_path, **({"limits__max_hours": 1e-9} if reason == "deadline" else {})), retry_rejected=True)
    if reason == "asked":
        run.stop.set()
    result = run.drive()
    assert (result.outcome, result.ok, result.rejected) == ("stopped", 19, 1)
    assert result.message
    assert result.earlier == 20  # none of them is this run's


def test_a_retry_stopped_over_rows_that_were_too_many_before_is_stopped_and_not_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["", "raise", "c"])
    job = make_job(tmp_path, limits__max_rejected=0)
    run_here(job)
    run = Run(job, retry_rejected=True)
    run.stop.set()
    assert run.drive().outcome == "stopped"


def test_a_store_that_refuses_stops_the_run_resumably(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path)
    Path(job.output.uri).mkdir()
    (Path(job.output.uri) / "data").touch()
    result = Run(job).drive()
    assert result.outcome == "stopped" and result.message
    (Path(job.output.uri) / "data").unlink()
    assert Run(job).drive().outcome == "done"


def test_a_run_that_was_stopped_when_another_run_had_done_its_work_is_done(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path)
    run = Run(job)
    run.stop.set()
    run_here(job)
    assert run.drive().outcome == "done"
