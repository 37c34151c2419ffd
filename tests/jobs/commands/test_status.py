"""`unipic status`: from the output's folder alone, and without touching it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes import make_job, receipts, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.jobs import cli
from unipic.pipeline.output.heartbeat import presence
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.sealed import sealed, unsealed
from unipic.pipeline.storage.storage import Storage


def told(output: str, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["status", output, *options])
    return capsys.readouterr().out


def test_status_tells_a_job_at_work_from_one_that_was_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_prompts(tmp_path / "manifest" / f"{name}.parquet", ["one", "two"])
    job = make_job(tmp_path)
    run_here(job, only=["a.parquet"])
    next((tmp_path / "out" / "_unipic" / "receipts").iterdir()).unlink()
    assert "not finished, no active run" in told(job.output.uri, capsys)
    with presence(Ledger(job.output.uri, Storage()), warn=print):
        said = told(job.output.uri, capsys)
        assert ": running\n" in said and "  run       " in said
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
    assert "  run       " not in told(job.output.uri, capsys)
    assert sign.exists()


def test_only_where_a_run_is_at_work_is_there_a_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"prompt {n}" for n in range(24)])
    job = make_job(tmp_path)
    run_here(job)
    folder = tmp_path / "out" / "_unipic" / "receipts"
    first, second, third = sorted(folder.iterdir())
    for path, finished in ((first, 100.0), (second, 108.0)):
        value = unsealed(path.read_text())
        path.write_text(sealed({**value, "facts": {**value["facts"], "finished": finished}}))
    third.unlink()
    assert "  rate      1.0 rows/s over the last units\n" in told(job.output.uri, capsys)
    assert json.loads(told(job.output.uri, capsys, "--json"))["eta_s"] is None
    with presence(Ledger(job.output.uri, Storage()), warn=print):
        assert "  rate      1.0 rows/s over the last units, 8 s left at that rate\n" in told(job.output.uri, capsys)


def test_status_says_why_rows_were_rejected_and_after_a_retry_why_they_still_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mended = tmp_path / "mended"
    write_prompts(tmp_path / "manifest" / "a.parquet", ["", f"flaky {mended}", *["well"] * 6, None, "well"])
    job = make_job(tmp_path)
    run_here(job)
    text = told(job.output.uri, capsys)
    assert "  rejected  2 EmptyPrompt: the prompt is empty; e.g. row 0 of a.parquet, id a-0\n" in text
    assert "  rejected  1 ReplicaFailed: " in text and "; e.g. row 1 of a.parquet, id a-1\n" in text
    said = json.loads(told(job.output.uri, capsys, "--json"))
    assert said["rejected_kinds"] == {"EmptyPrompt": 2, "ReplicaFailed": 1}
    mended.touch()
    retry_here(job)
    assert "  rejected  2 EmptyPrompt: the prompt is empty; e.g." in told(job.output.uri, capsys)
    assert "ReplicaFailed" not in told(job.output.uri, capsys)


def test_kinds_are_in_receipts_with_rejected_rows_alone(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["", "", *["well"] * 14])
    job = make_job(tmp_path)
    run_here(job)
    with_rejected, without = sorted(receipts(job), key=lambda one: one.first_row)
    assert (with_rejected.facts.rejected_kinds, without.facts.rejected_kinds) == ({"EmptyPrompt": 2}, {})


def test_an_output_with_too_many_rejected_rows_is_not_called_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["", "", *["fine"] * 6])
    job = make_job(tmp_path, limits__max_rejected="10%")
    run_here(job)
    text = told(job.output.uri, capsys)
    assert ": too many rejected rows (limits.max_rejected allows 0), no active run\n" in text and "finished" not in text
    facts = json.loads(told(job.output.uri, capsys, "--json"))
    assert facts["complete"] and not facts["finished"]
