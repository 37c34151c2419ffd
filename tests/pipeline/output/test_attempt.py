"""Publishing on S3, where staged copies outlive their publication for a while."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import FakeEngine, make_job, write_prompts
from tests.inprocess import retry_here, run_here
from tests.servers import S3Server
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.output.claims import claim
from unipic.pipeline.output.layout import STAGING
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.recovery import recover
from unipic.pipeline.preflight import preflight
from unipic.pipeline.stages.commit import commit
from unipic.pipeline.stages.infer import Replica
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.storage.storage import Storage
from unipic.pipeline.supervision.supervisor import Supervisor


@pytest.fixture
def job(tmp_path: Path, moto: S3Server) -> Job:
    """Two units, with a rejected row that succeeds once there is a file `works`."""
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {tmp_path}/works", *(f"p {n}" for n in range(9)), ""])
    storage = {"endpoint_url": moto.endpoint_url}
    return make_job(tmp_path, output__uri=f"{moto.bucket()}/out", output__images="files", storage=storage)


def committed_only(job: Job) -> Ledger:
    """All units are committed and published, and the process ends before it deletes anything."""
    context, manifest, ledger = preflight(job, Storage(job.storage))
    run, manifest = claim(ledger, job, manifest, context.checkpoint_digest)
    replica = Replica(context, Supervisor(), FakeEngine)
    for unit in units(manifest, run.rows_per_unit):
        commit(unit, replica.answer(unit, prepare(unit, context)), context)
    return ledger


def staged(ledger: Ledger) -> list[str]:
    return list(ledger.list(STAGING, recursive=True))


def test_staged_copies_of_what_is_published_are_no_fault_and_go_with_the_end_of_a_run(job: Job) -> None:
    ledger = committed_only(job)
    assert len(staged(ledger)) > 10
    assert verify(job.output.uri, ledger.storage).verdict == "sound"
    recover(ledger, ledger.snapshot(ledger.recorded()))
    assert staged(ledger) == []
    assert verify(job.output.uri, ledger.storage).verdict == "sound"


@pytest.mark.parametrize("then", [run_here, retry_here])
def test_staged_copies_that_a_dead_process_left_bring_nothing_back(
    job: Job, then: Callable[[Job], object], tmp_path: Path
) -> None:
    ledger = committed_only(job)
    (tmp_path / "works").touch()
    then(job)
    assert staged(ledger) == []
    report = verify(job.output.uri, ledger.storage)
    assert report.verdict == "sound", report.problems
    assert report.rejected == (1 if then is retry_here else 2)


def test_staged_copies_that_a_dead_process_left_do_not_survive_a_redo(job: Job, tmp_path: Path) -> None:
    ledger = committed_only(job)
    write_prompts(tmp_path / "manifest" / "a.parquet", ["new", "newer"])
    run_here(job, redo_changed=True)
    assert staged(ledger) == []
    report = verify(job.output.uri, ledger.storage)
    assert report.verdict == "sound" and report.data == 2, report.problems
