"""A job is checked where it is submitted, and means the same where it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest

from tests.fakes import make_job, write_prompts
from unipic.jobs.spec.load import load_job
from unipic.pipeline.errors import JobError
from unipic.pipeline.job import Task
from unipic.pipeline.submission.cluster import JobsOfCluster, open_dashboard
from unipic.pipeline.submission.submission import JOB_FILE, check, with_whole_paths


@pytest.mark.parametrize("task", get_args(Task))
def test_the_job_file_that_is_sent_is_the_job(task: str, tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"], image=[b"1", b"2"])
    columns = {"prompt": "prompt", "image": "image"} if task == "edit" else {"image": "image"}
    job = make_job(tmp_path, task, input__columns={"prompt": "prompt"} if task == "generate" else columns)
    sent = check(job)
    sent.write(tmp_path)
    assert load_job(tmp_path / JOB_FILE) == job
    assert sent.rows == 2


def test_the_id_is_the_jobs_own_whatever_it_takes_to_run_it(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    first = check(make_job(tmp_path))
    again = check(make_job(tmp_path, compute__replicas=4, limits__max_hours=2.0))
    other = check(make_job(tmp_path, params__seed=7))
    elsewhere = check(make_job(tmp_path, output__uri=str(tmp_path / "other")))
    assert first.id == again.id
    assert len({first.id, other.id, elsewhere.id}) == 3


def test_relative_paths_are_sent_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = with_whole_paths(make_job(Path("")))
    assert (job.input.manifest, job.output.uri) == (str(tmp_path / "manifest"), str(tmp_path / "out"))
    assert with_whole_paths(make_job(tmp_path, model__checkpoint="builtin:tiny")).model.checkpoint == "builtin:tiny"
    assert with_whole_paths(make_job(tmp_path, output__uri="s3://b/out")).output.uri == "s3://b/out"
    with pytest.raises(JobError, match=r"input\.image_root is relative: images\. Give a whole path"):
        with_whole_paths(make_job(tmp_path, input__image_root="images"))


def test_no_credentials_are_sent_and_the_grace_of_the_job_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    sent = check(make_job(tmp_path, limits__grace_s=300))
    sent.write(tmp_path)
    assert sent.variables() == {"RAY_JOB_STOP_WAIT_TIME_S": "360"}
    assert "hidden" not in (tmp_path / JOB_FILE).read_text() + str(sent)


def test_what_is_no_dashboard_is_refused() -> None:
    with pytest.raises(JobError, match="ray://head:10001 is not the address of a dashboard"):
        JobsOfCluster("ray://head:10001")


def test_a_dashboard_that_strangers_can_reach_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert "everyone who can connect can run code there" in open_dashboard("http://8.8.8.8:8265")
    assert open_dashboard("http://127.0.0.1:8265") == open_dashboard("http://10.0.0.7:8265") == ""
    monkeypatch.setitem(os.environ, "RAY_AUTH_MODE", "token")
    assert open_dashboard("http://8.8.8.8:8265") == ""
