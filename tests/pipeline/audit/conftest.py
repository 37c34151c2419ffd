"""Finished outputs to audit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import two_files
from tests.fakes import make_job, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.job import Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Two manifest files, 10 rows and two units each."""
    return two_files(tmp_path)


@pytest.fixture
def finished(tmp_path: Path) -> Job:
    """One manifest file, 20 rows in three units, of which the last two rows are rejected."""
    write_prompts(tmp_path / "manifest" / "a.parquet", [*(f"prompt {n}" for n in range(18)), "", None])
    job = make_job(tmp_path)
    run_here(job)
    return job


@pytest.fixture
def flaky(tmp_path: Path) -> Job:
    """Two rows, of which one fails until there is a file `mended`."""
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", f"flaky {tmp_path}/mended"])
    return make_job(tmp_path)


@pytest.fixture
def chain(finished: Job, tmp_path: Path) -> tuple[Job, Job, Job]:
    """Pictures, edits of them, captions of the edits."""
    columns = {"id": "id", "image": "image"}
    edit = make_job(
        tmp_path,
        "edit",
        input={"manifest": f"{finished.output.uri}/data", "columns": columns},
        params={"image_size": 16, "instruction": "make it night"},
        output__uri=str(tmp_path / "edits"),
    )
    run_here(edit)
    caption = make_job(
        tmp_path,
        "caption",
        input={"manifest": f"{edit.output.uri}/data", "columns": columns},
        output__uri=str(tmp_path / "captions"),
    )
    run_here(caption)
    return finished, edit, caption
