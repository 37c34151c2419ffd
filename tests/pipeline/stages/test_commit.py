"""What an attempt leaves behind when it dies: nothing that a reader could take for an output."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import FakeEngine, all_rows, make_job, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline import crashpoints
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.catalog.events import Ending, emit
from unipic.pipeline.errors import (
    StorageUnavailable,
)
from unipic.pipeline.job import Job
from unipic.pipeline.output.heartbeat import presence
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.preflight import preflight
from unipic.pipeline.run import run
from unipic.pipeline.stages import commit as committing
from unipic.pipeline.storage.storage import Storage


class Died(BaseException):
    """The process is gone."""

    def __str__(self) -> str:
        return "died"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """While this file is there, flaky rows go well."""
    return tmp_path / "mark"


@pytest.fixture
def dies_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder: a file in it named like a crash point kills the next process that comes there."""

    def die() -> None:
        raise Died

    points = tmp_path / "points"
    points.mkdir()
    monkeypatch.setenv(crashpoints.VARIABLE, str(points))
    monkeypatch.setattr(crashpoints, "die", die)
    yield points


def flaky_job(tmp_path: Path, mark: Path, *others: str) -> Job:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {mark}", *others])
    return make_job(tmp_path)


def problems(job: Job) -> dict[str, int]:
    return dict(verify(job.output.uri, Storage()).counts)


def test_rows_that_went_well_before_a_death_and_fail_after_it_are_in_one_place_only(
    tmp_path: Path, mark: Path, dies_at: Path
) -> None:
    job = flaky_job(tmp_path, mark)
    mark.touch()
    for point in ("commit.before_receipt", "commit.after_receipt"):
        (dies_at / point).touch()
        with pytest.raises(Died, match="died"):
            run_here(job)
        mark.unlink(missing_ok=True)
    assert verify(job.output.uri, Storage()).verdict == "incomplete"
    run_here(job)
    assert all_rows(job) == [] and len(all_rows(job, "rejected")) == 1
    assert problems(job) == {}


def test_a_superseded_rejected_part_is_called_so_and_the_next_run_deletes_it(tmp_path: Path, mark: Path) -> None:
    job = flaky_job(tmp_path, mark)
    run_here(job)
    (part,) = (tmp_path / "out" / "rejected").iterdir()
    before = part.read_bytes()
    mark.touch()
    retry_here(job)
    part.write_bytes(before)
    assert problems(job) == {"superseded file": 1}
    run_here(job)
    assert problems(job) == {} and not part.exists()


def interrupted_retry(folder: Path, mark: Path, dies_at: Path) -> Job:
    """A job whose one rejected row was valid in a retry that died before its receipt."""
    job = flaky_job(folder, mark, "a")
    run_here(job)
    mark.touch()
    (dies_at / "commit.before_receipt").touch()
    with pytest.raises(Died, match="died"):
        retry_here(job)
    return job


def test_an_interrupted_retry_is_not_visible_and_the_same_command_finishes_it(
    tmp_path: Path, mark: Path, dies_at: Path
) -> None:
    job = interrupted_retry(tmp_path, mark, dies_at)
    assert problems(job) == {} and len(all_rows(job)) == 1
    retry_here(job)
    assert len(all_rows(job)) == 2
    assert problems(job) == {}
    assert not list((tmp_path / "out" / "_unipic" / "staging").rglob("*.parquet"))


def test_a_row_that_goes_well_in_an_interrupted_retry_and_fails_in_the_next_is_in_one_place_only(
    tmp_path: Path, mark: Path, dies_at: Path
) -> None:
    job = interrupted_retry(tmp_path, mark, dies_at)
    mark.unlink()
    retry_here(job)
    assert (len(all_rows(job)), len(all_rows(job, "rejected"))) == (1, 1)
    assert problems(job) == {}


@pytest.mark.parametrize("well_first", [True, False])
def test_two_runs_at_once_whose_rows_answer_otherwise_leave_the_first_committed_answer_whole(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, well_first: bool
) -> None:
    job = flaky_job(tmp_path, mark, "b")
    if not well_first:
        mark.touch()

    def another_run_commits() -> None:
        monkeypatch.setattr(committing, "crash_point", lambda name: None)
        mark.touch() if well_first else mark.unlink()
        run_here(job)

    def at(name: str) -> None:
        if name == "commit.before_receipt":
            another_run_commits()

    monkeypatch.setattr(committing, "crash_point", at)
    run_here(job)
    well, ill = all_rows(job), all_rows(job, "rejected")
    assert (len(well), len(ill)) == ((2, 0) if well_first else (1, 1))
    assert problems(job) == {}


def test_two_runs_at_once_lose_none_of_their_events(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    _, manifest, ledger = preflight(job, Storage())
    with emit(ledger, job, manifest, warn=pytest.fail) as one, emit(ledger, job, manifest, warn=pytest.fail) as other:
        one(Ending("done"))
        other(Ending("stopped"))
    files = (tmp_path / "out" / "_unipic" / "events").iterdir()
    events = [[json.loads(line) for line in path.read_text().splitlines()] for path in files]
    kinds = Counter(tuple(event["eventType"] for event in run) for run in events)
    assert kinds == {("START", "COMPLETE"): 1, ("START", "ABORT"): 1}
    assert all(len({event["run"]["runId"] for event in run}) == 1 for run in events)


class FailsLate(Storage):
    """A store that takes a run's first event and sign, and nothing after them."""

    def write(self, uri: str, data: bytes) -> None:
        if b"COMPLETE" in data:
            raise StorageUnavailable(f"{uri} could not be reached")
        super().write(uri, data)

    def delete(self, uri: str) -> None:
        if "/running/" in uri:
            raise StorageUnavailable(f"{uri} could not be reached")
        super().delete(uri)


def test_a_finished_run_ends_well_and_names_the_bookkeeping_that_could_not_be_written(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    monkeypatch.setattr("unipic.pipeline.run.Storage", FailsLate)
    notes: set[str] = set()
    job = make_job(tmp_path)
    result = run(job, make_engine=FakeEngine, on_progress=lambda progress: notes.update(progress.notes))
    assert result.outcome == "done"
    warnings = sorted(note for note in notes if "could not be reached" in note)
    assert "/_unipic/events/" in warnings[0] and "lacks this run's last event" in warnings[0]
    assert "/_unipic/running/" in warnings[1] and "still says that this run is at work" in warnings[1]


def test_an_error_is_not_hidden_behind_bookkeeping_that_fails_too(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    _, manifest, _ = preflight(job, Storage())
    ledger = Ledger(job.output.uri, FailsLate())
    warned: list[str] = []
    with (
        pytest.raises(ValueError, match="the real one"),
        emit(ledger, job, manifest, warn=warned.append),
        presence(ledger, warn=warned.append),
    ):
        raise ValueError("the real one")
    assert len(warned) == 1  # the FAIL event passes, the sign stays


def test_an_attempt_that_another_run_overtakes_with_other_answers_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row of ours is valid; the other run, in which one was rejected, commits first."""
    mark = tmp_path / "mark"
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {mark}", "b"])
    job = make_job(tmp_path)
    mark.touch()

    def at(name: str) -> None:
        if name == "commit.after_data":
            monkeypatch.setattr(committing, "crash_point", lambda name: None)
            mark.unlink()
            run_here(job)

    monkeypatch.setattr(committing, "crash_point", at)
    run_here(job)
    assert verify(job.output.uri, Storage()).ok


def test_two_retries_at_once_whose_rows_answer_otherwise_leave_one_answer_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = [tmp_path / "one", tmp_path / "other"]
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {mark}" for mark in marks])
    job = make_job(tmp_path)
    run_here(job)
    marks[0].touch()
    committed = threading.Event()

    def at(name: str) -> None:
        if name == "commit.before_rejected" and not committed.is_set():
            committed.set()
            marks[0].unlink()
            marks[1].touch()
            retry_here(job)

    monkeypatch.setattr(committing, "crash_point", at)
    retry_here(job)
    assert committed.is_set()
    assert verify(job.output.uri, Storage()).ok
    assert (len(all_rows(job)), len(all_rows(job, "rejected"))) == (1, 1)
