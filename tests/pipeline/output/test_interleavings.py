"""Late writers: an attempt that sleeps anywhere in its commit changes nothing that another run has settled since."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import all_rows, make_job, part_bytes, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.prune import prune
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.crashpoints import POINTS
from unipic.pipeline.errors import JobError, UniPicError
from unipic.pipeline.job import Job
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
