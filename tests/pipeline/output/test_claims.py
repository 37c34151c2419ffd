from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes import make_job, write_prompts
from tests.inprocess import run_here
from tests.servers import S3Server
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.output import claims
from unipic.pipeline.output.claims import claim
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.preflight import preflight
from unipic.pipeline.storage.storage import Storage

ROUNDS = 8


def claim_here(job: Job) -> str:
    """The name of the job that a claim ends with, or the refusal."""
    try:
        context, manifest, ledger = preflight(job, Storage(job.storage))
        run, _ = claim(ledger, job, manifest, context.checkpoint_digest)
    except OutputError as error:
        return error.message
    return run.name


def at_once(*calls: Callable[[], str]) -> list[str]:
    barrier = threading.Barrier(len(calls))

    def call(one: Callable[[], str]) -> str:
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def two_jobs(root: Path, uri: str, **changes: object) -> list[Job]:
    """Two jobs over one manifest and into one output that differ in their guidance."""
    jobs = []
    for name, guidance in (("one", 2.0), ("other", 5.0)):
        job = make_job(root, output__uri=uri, params__guidance=guidance, **changes)
        jobs.append(job.model_copy(update={"name": name}))
    return jobs


def check_one_wins(said: list[str], jobs: list[Job]) -> None:
    winners = [text for text in said if text in ("one", "other")]
    assert len(winners) == 1, said
    refusal = next(text for text in said if text not in ("one", "other"))
    assert "params.guidance" in refusal and f"holds the output of job {winners[0]!r}" in refusal
    recorded = Ledger(jobs[0].output.uri, Storage(jobs[0].storage)).recorded()
    assert recorded.name == winners[0]


def test_of_two_different_jobs_that_claim_a_new_folder_at_once_one_is_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    for number in range(ROUNDS):
        jobs = two_jobs(tmp_path, str(tmp_path / f"out-{number}"))
        check_one_wins(at_once(*(lambda job=job: claim_here(job) for job in jobs)), jobs)


def test_of_two_different_jobs_that_claim_a_bucket_at_once_one_is_refused(tmp_path: Path, moto: S3Server) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    bucket = moto.bucket()
    for number in range(ROUNDS):
        jobs = two_jobs(tmp_path, f"{bucket}/out-{number}", storage__endpoint_url=moto.endpoint_url)
        check_one_wins(at_once(*(lambda job=job: claim_here(job) for job in jobs)), jobs)


@pytest.mark.slow
def test_without_conditional_puts_two_different_jobs_settle_by_announcement(tmp_path: Path, rclone: S3Server) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    jobs = two_jobs(tmp_path, f"{rclone.bucket()}/out", storage__endpoint_url=rclone.endpoint_url)
    check_one_wins(at_once(*(lambda job=job: claim_here(job) for job in jobs)), jobs)
    left = Storage(jobs[0].storage).list(f"{jobs[0].output.uri}/_unipic/claims")
    assert list(left) == []


def test_runs_of_one_job_that_claim_at_once_join_one_epoch(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    assert at_once(*[lambda: claim_here(job)] * 4) == ["trial"] * 4
    assert Ledger(job.output.uri, Storage()).latest_epoch() == 1


def test_a_resume_opens_no_epoch_and_a_new_manifest_file_opens_one(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    ledger = Ledger(job.output.uri, Storage())
    run_here(job)
    run_here(job)
    assert ledger.latest_epoch() == 1
    write_prompts(tmp_path / "manifest" / "b.parquet", ["b"])
    run_here(job)
    assert (ledger.latest_epoch(), ledger.recorded().epoch.action) == (2, "extend")
    assert verify(job.output.uri, Storage()).ok


def test_two_redos_at_once_open_one_epoch_and_lose_nothing(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path)
    run_here(job)
    write_prompts(tmp_path / "manifest" / "a.parquet", ["new", "b", "c"])
    at_once(*[lambda: str(run_here(job, redo_changed=True))] * 2)
    ledger = Ledger(job.output.uri, Storage())
    assert (ledger.latest_epoch(), ledger.recorded().epoch.action) == (2, "redo")
    report = verify(job.output.uri, Storage())
    assert (report.verdict, report.data) == ("sound", 3)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"name": 1}', '{"sha256": "0"}', "\x00", '{"a": NaN}'])
def test_a_damaged_run_record_is_a_sentence(tmp_path: Path, damage: str) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    run_here(job)
    for path in ("_unipic/run.json", "_unipic/epochs/000001.json"):
        file = tmp_path / "out" / path
        whole = file.read_bytes()
        file.write_text(damage)
        with pytest.raises(OutputError, match=r"is damaged: .*Restore it from a backup"):
            Ledger(job.output.uri, Storage()).recorded()
        assert verify(job.output.uri, Storage()).counts == {"altered record": 1}
        file.write_bytes(whole)


@pytest.mark.parametrize("dead", ["0" * 16, "f" * 16], ids=["first by name", "last by name"])
def test_a_claimant_that_died_on_a_store_without_conditional_puts_keeps_none_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    monkeypatch.setattr(Storage, "conditional", lambda *_: False)
    monkeypatch.setattr(claims, "SETTLE_S", 0.0)
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    announcement = tmp_path / "out" / "_unipic" / "claims" / f"{dead}.json"
    announcement.parent.mkdir(parents=True)
    announcement.write_text("{}")
    assert run_here(job) == 1
    assert not announcement.exists()
    announcement.parent.mkdir(exist_ok=True)
    announcement.write_text("{}")  # it wrote late, and died before it could delete it
    assert verify(job.output.uri, Storage()).verdict == "sound"
