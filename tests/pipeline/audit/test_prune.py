"""Pruning from Python: the function itself refuses what would empty an output or disturb a run at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import prompts, tree, two_files
from unipic.pipeline.audit.prune import prune
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import JobError, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.output.heartbeat import presence
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.storage.storage import Storage


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return two_files(tmp_path)


def test_without_remove_the_files_are_listed_and_nothing_is_removed(job: Job, tmp_path: Path) -> None:
    assert prune(job, Storage(), remove=True) == []
    (tmp_path / "manifest" / "b.parquet").unlink()
    before = tree(job)
    assert [one.name for one in prune(job, Storage())] == ["b.parquet"]
    assert tree(job) == before
    assert [one.name for one in prune(job, Storage(), remove=True)] == ["b.parquet"]
    report = verify(job.output.uri, Storage())
    assert report.ok and report.rows == 10


def test_no_call_removes_a_whole_output(job: Job, tmp_path: Path) -> None:
    prompts(tmp_path / "other", "c")
    elsewhere = job.input.model_copy(update={"manifest": f"{tmp_path}/other/manifest/*.parquet"})
    before = tree(job)
    with pytest.raises(JobError, match=r"the manifest has none of the 2 manifest files of "):
        prune(job.model_copy(update={"input": elsewhere}), Storage(), remove=True)
    assert tree(job) == before


def test_no_call_prunes_beside_a_run_at_work(job: Job, tmp_path: Path) -> None:
    (tmp_path / "manifest" / "b.parquet").unlink()
    with presence(Ledger(job.output.uri, Storage()), warn=print):
        before = tree(job)
        with pytest.raises(JobError, match="another run is active in"):
            prune(job, Storage(), remove=True)
        assert tree(job) == before


def test_the_output_of_another_job_and_a_folder_without_a_run_are_refused(job: Job, tmp_path: Path) -> None:
    other = job.model_copy(update={"params": job.params.model_copy(update={"seed": 7})})
    with pytest.raises(OutputError, match=r"differs from this one in params\.seed"):
        prune(other, Storage(), remove=True)
    nowhere = job.model_copy(update={"output": job.output.model_copy(update={"uri": str(tmp_path / "empty")})})
    with pytest.raises(OutputError, match="holds no output of ours"):
        prune(nowhere, Storage(), remove=True)
