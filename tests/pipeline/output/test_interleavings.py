"""Late writers: an attempt that sleeps anywhere in its commit changes nothing that another run has settled since."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import all_rows, make_job, part_bytes, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline import run as running
from unipic.pipeline.audit import prune as pruning
from unipic.pipeline.audit.prune import prune
from unipic.pipeline.audit.repair import clear
from unipic.pipeline.audit.repair_plan import RepairPlan
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.crashpoints import POINTS
from unipic.pipeline.errors import JobError, ManifestError, UniPicError
from unipic.pipeline.execution.reporter import Reporter
from unipic.pipeline.execution.stop_policy import StopPolicy
from unipic.pipeline.job import Job
from unipic.pipeline.output.claims import claim
from unipic.pipeline.output.reconciliation import Reconciliation
from unipic.pipeline.preflight import preflight
from unipic.pipeline.run import Work, finish, reconciled, what_is_left
from unipic.pipeline.stages import commit as committing
from unipic.pipeline.storage.storage import Storage

COMMIT_POINTS = [point for point in POINTS if point.startswith("commit.") and not point.endswith("image")]


class Died(BaseException):
    """The process is gone."""

    def __str__(self) -> str:
        return "died"


@pytest.fixture
def sleeps_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], None]], None]:
    """Have the next attempt that reaches a crash point sleep there while `meanwhile` happens."""

    def arrange(point: str, meanwhile: Callable[[], None]) -> None:
        def at(name: str) -> None:
            if name == point:
                monkeypatch.setattr(committing, "crash_point", lambda _: None)
                meanwhile()

        monkeypatch.setattr(committing, "crash_point", at)

    return arrange


def flaky_job(tmp_path: Path, mark: Path) -> Job:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {mark}", "b"])
    return make_job(tmp_path)


def check_sound(job: Job, rows: int) -> None:
    report = verify(job.output.uri, Storage())
    assert report.verdict == "sound", report.problems
    assert len(all_rows(job)) + len(all_rows(job, "rejected")) == rows


@pytest.mark.parametrize("dies", [False, True], ids=["and goes on", "and dies"])
@pytest.mark.parametrize("valid_first", [False, True])
@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_a_worker_that_sleeps_while_another_run_commits_other_answers_changes_nothing(
    tmp_path: Path,
    sleeps_at: Callable[[str, Callable[[], None]], None],
    point: str,
    valid_first: bool,
    dies: bool,
) -> None:
    mark = tmp_path / "mark"
    job = flaky_job(tmp_path, mark)
    if not valid_first:
        mark.touch()
    settled: list[dict[str, bytes]] = []

    def another_run() -> None:
        mark.touch() if valid_first else mark.unlink()
        run_here(job)
        settled.append(part_bytes(job))
        if dies:
            raise Died

    sleeps_at(point, another_run)
    with contextlib.suppress(Died):
        run_here(job)
    check_sound(job, rows=2)
    run_here(job)
    check_sound(job, rows=2)
    if settled:
        assert part_bytes(job) == settled[0]


@pytest.mark.parametrize("dies", [False, True], ids=["and goes on", "and dies"])
@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_a_worker_that_sleeps_through_a_redo_brings_no_old_row_back(
    tmp_path: Path, sleeps_at: Callable[[str, Callable[[], None]], None], point: str, dies: bool
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["old", "", "b"])
    job = make_job(tmp_path)
    settled: list[dict[str, bytes]] = []

    def redo() -> None:
        write_prompts(tmp_path / "manifest" / "a.parquet", ["new", "c", "", "d"])
        run_here(job, redo_changed=True)
        settled.append(part_bytes(job))
        if dies:
            raise Died

    sleeps_at(point, redo)
    try:
        run_here(job)
    except Died:
        pass
    except JobError as error:  # it reads the manifest once more, or looks for a new epoch
        assert (
            "took the rows of a.parquet back" in error.message or "changed since the run was planned" in error.message
        )
    assert part_bytes(job) == settled[0]
    run_here(job)
    check_sound(job, rows=4)
    assert [row["prompt"] for row in all_rows(job)] == ["new", "c", "d"]


@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_a_worker_that_sleeps_through_a_prune_brings_no_row_back(
    tmp_path: Path, sleeps_at: Callable[[str, Callable[[], None]], None], point: str
) -> None:
    gone = write_prompts(tmp_path / "manifest" / "a.parquet", ["old", ""])
    write_prompts(tmp_path / "manifest" / "b.parquet", ["b"])
    job = make_job(tmp_path)

    def drop() -> None:
        gone.unlink()
        prune(job, Storage(), remove=True)

    sleeps_at(point, drop)
    try:
        run_here(job)
    except UniPicError as error:
        assert "took the rows of a.parquet back" in error.message or "There is no" in error.message
    run_here(job)
    check_sound(job, rows=1)
    assert [row["prompt"] for row in all_rows(job)] == ["b"]


@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_a_retry_that_sleeps_through_another_retry_leaves_one_answer_whole(
    tmp_path: Path, sleeps_at: Callable[[str, Callable[[], None]], None], point: str
) -> None:
    marks = [tmp_path / "one", tmp_path / "other"]
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {mark}" for mark in marks])
    job = make_job(tmp_path)
    run_here(job)
    marks[0].touch()

    def another_retry() -> None:
        marks[0].unlink()
        marks[1].touch()
        retry_here(job)

    sleeps_at(point, another_retry)
    retry_here(job)
    run_here(job)
    check_sound(job, rows=2)


def test_a_publisher_that_sleeps_through_a_retry_publishes_no_superseded_row(
    tmp_path: Path, sleeps_at: Callable[[str, Callable[[], None]], None]
) -> None:
    """It has committed and not published: the retry publishes for it, and takes the rejected rows back."""
    mark = tmp_path / "mark"
    job = flaky_job(tmp_path, mark)

    def retry() -> None:
        mark.touch()
        retry_here(job)

    sleeps_at("commit.after_receipt", retry)
    run_here(job)
    check_sound(job, rows=2)
    assert len(all_rows(job)) == 2


@pytest.mark.parametrize("files", ["inline", "files"])
def test_a_run_that_dies_between_receipt_and_publishing_is_finished_by_the_next(
    tmp_path: Path, sleeps_at: Callable[[str, Callable[[], None]], None], files: str
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "", "c"])
    job = make_job(tmp_path, output__images=files)

    def die() -> None:
        raise Died

    sleeps_at("commit.after_receipt", die)
    with pytest.raises(Died, match="died"):
        run_here(job)
    report = verify(job.output.uri, Storage())
    assert report.verdict == "incomplete" and set(report.counts) == {"unpublished part"}
    assert all_rows(job) == []
    assert run_here(job) == 0  # nothing is made again
    check_sound(job, rows=3)


@pytest.mark.parametrize("point", ["commit.before_rejected", "commit.before_receipt"])
def test_a_worker_that_sleeps_through_a_commit_of_its_bytes_and_a_retry_brings_no_rejected_row_back(
    tmp_path: Path, sleeps_at: Callable[[str, Callable[[], None]], None], point: str
) -> None:
    mark = tmp_path / "mark"
    job = flaky_job(tmp_path, mark)
    settled: list[dict[str, bytes]] = []

    def another_run_and_a_retry() -> None:
        run_here(job)
        mark.touch()
        retry_here(job)
        settled.append(part_bytes(job))
        mark.unlink()

    sleeps_at(point, another_run_and_a_retry)
    run_here(job)
    assert part_bytes(job) == settled[0]
    assert (len(all_rows(job)), len(all_rows(job, "rejected"))) == (2, 0)


def test_no_reader_sees_a_row_twice_while_rejected_rows_are_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = [tmp_path / "one", tmp_path / "other"]
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {mark}" for mark in marks])
    job = make_job(tmp_path)
    run_here(job)
    marks[0].touch()
    seen: list[int] = []

    def looked_at_after(name: str) -> None:
        real = getattr(Storage, name)

        def and_look(*args: object, **how: object) -> None:
            real(*args, **how)
            prompts = [row["prompt"] for folder in ("data", "rejected") for row in all_rows(job, folder)]
            assert len(prompts) == len(set(prompts))
            seen.append(len(prompts))

        monkeypatch.setattr(Storage, name, and_look)

    looked_at_after("move")
    looked_at_after("delete")
    retry_here(job)
    assert seen[-1] == 2 and len(seen) >= 3


def test_a_run_that_ends_well_has_published_what_another_run_committed_last(
    tmp_path: Path, sleeps_at: Callable[[str, Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path)
    context, manifest, ledger = preflight(job, Storage())
    record, manifest = claim(ledger, job, manifest, context.checkpoint_digest)
    known = ledger.snapshot(record)
    work = what_is_left(context, manifest, ledger, known)
    counted = reconciled

    def dies() -> None:
        raise Died

    def another_run_commits_first(work: Work) -> Reconciliation:
        sleeps_at("commit.after_receipt", dies)
        with pytest.raises(Died, match="died"):
            run_here(job)
        return counted(work)

    monkeypatch.setattr(running, "reconciled", another_run_commits_first)
    policy = StopPolicy(job, 2, stop_requested=lambda: False)
    result = finish(work, policy, Reporter(lambda _: None, work.tally, policy))
    assert (result.outcome, result.ok) == ("done", 2)
    assert [row["prompt"] for row in all_rows(job)] == ["a", "b"]


def test_a_repair_whose_audit_is_out_of_date_takes_no_committed_file_away(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path)
    run_here(job)
    (path,) = part_bytes(job)
    report = verify(job.output.uri, Storage())
    report.foreign.append(path.removeprefix("/"))  # as an audit reports a part that was committed while it listed
    clear(job.output.uri, Storage(), report, RepairPlan())
    check_sound(job, rows=2)
    write_prompts(tmp_path / "manifest" / "a.parquet", ["new", "b"])
    run_here(job, redo_changed=True)
    with pytest.raises(JobError, match=r"another process changed .* while it was audited.*Run the same command again"):
        clear(job.output.uri, Storage(), report, RepairPlan())
    check_sound(job, rows=2)


def test_a_redo_that_slept_since_it_looked_at_the_manifest_takes_no_newer_rows_back(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["first", "b"])
    job = make_job(tmp_path)
    run_here(job)
    write_prompts(tmp_path / "manifest" / "a.parquet", ["second", "b"])
    context, out_of_date, ledger = preflight(job, Storage())
    write_prompts(tmp_path / "manifest" / "a.parquet", ["third", "b"])
    run_here(job, redo_changed=True)
    settled = part_bytes(job)
    with pytest.raises(
        ManifestError, match=r"The manifest changed while this run began\. Run the same command again\."
    ):
        claim(ledger, job, out_of_date, context.checkpoint_digest, redo_changed=True)
    assert part_bytes(job) == settled
    check_sound(job, rows=2)


def test_a_prune_that_slept_while_a_file_came_back_takes_none_of_its_rows_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    gone = write_prompts(tmp_path / "manifest" / "b.parquet", ["b"])
    job = make_job(tmp_path)
    run_here(job)
    away = gone.rename(tmp_path / "away")

    def came_back(*_: object, **__: object) -> None:
        away.rename(gone)

    monkeypatch.setattr(pruning, "refuse_beside_runs", came_back)
    assert prune(job, Storage(), remove=True) == []
    check_sound(job, rows=2)
