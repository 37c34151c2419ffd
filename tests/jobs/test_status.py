"""`unipic status`: from the output's folder alone, and without touching it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import cli
from pipeline.company import presence
from pipeline.ledger import Ledger
from pipeline.storage import Storage
from tests.fakes import make_job, write_prompts
from tests.inprocess import run_here


def told(output: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["status", output])
    return capsys.readouterr().out


def test_status_tells_a_job_at_work_from_one_that_was_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_prompts(tmp_path / "manifest" / f"{name}.parquet", ["one", "two"])
    job = make_job(tmp_path)
    run_here(job, only=["a.parquet"])
    next((tmp_path / "out" / "_unipic" / "receipts").iterdir()).unlink()
    assert "not finished, and no run is at work on it" in told(job.output.uri, capsys)
    with presence(Ledger(job.output.uri, Storage()), warn=print):
        said = told(job.output.uri, capsys)
        assert ": at work\n" in said and "  at work   " in said
    run_here(job)
    assert ": finished" in told(job.output.uri, capsys)


def test_status_leaves_the_sign_of_a_dead_run_for_those_that_may_delete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["one"])
    job = make_job(tmp_path)
    run_here(job)
    sign = tmp_path / "out" / "_unipic" / "running" / "gone.json"
    sign.parent.mkdir()
    sign.write_text('{"host": "elsewhere", "pid": 1, "started": 0, "seen": 0}')
    assert "at work" not in told(job.output.uri, capsys)
    assert sign.exists()
