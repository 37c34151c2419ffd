"""A whole job without Ray: the same stage functions, the same commit, one process. For drills in the hundreds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tests.fakes import FakeEngine
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.output.claims import claim
from unipic.pipeline.output.recovery import recover
from unipic.pipeline.preflight import preflight
from unipic.pipeline.stages.commit import commit
from unipic.pipeline.stages.engine import MakeEngine
from unipic.pipeline.stages.infer import Replica
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.storage.storage import Storage
from unipic.pipeline.supervision.supervisor import Supervisor


def run_here(
    job: Job,
    *,
    make_engine: MakeEngine = FakeEngine,
    storage: Storage | None = None,
    only: Collection[str] | None = None,
    again: Collection[str] = (),
    redo_changed: bool = False,
) -> int:
    """Do what is left of `job`, and units of `again` once more; returns how many units that were."""
    context, manifest, ledger = preflight(job, storage or Storage(job.storage))
    if only is not None:
        manifest = replace(manifest, files=tuple(one for one in manifest.files if one.name in only))
    run, manifest = claim(ledger, job, manifest, context.checkpoint_digest, redo_changed=redo_changed)
    context = replace(context, epoch=run.epoch.number)
    snapshot = ledger.snapshot(run)
    recover(ledger, snapshot)
    replica = Replica(context, Supervisor(), make_engine)
    planned = list(units(manifest, run.rows_per_unit))
    left = [*snapshot.left(planned), *(snapshot.ready(unit) for unit in planned if unit.id in again)]
    for unit in left:
        commit(unit, replica.answer(unit, prepare(unit, context)), context)
    recover(ledger, ledger.snapshot(run))
    return len(left)


def retry_here(job: Job, *, make_engine: MakeEngine = FakeEngine, storage: Storage | None = None) -> None:
    """Try the rejected rows of `job` once more."""
    context, manifest, ledger = preflight(job, storage or Storage(job.storage))
    run, manifest = claim(ledger, job, manifest, context.checkpoint_digest)
    context = replace(context, epoch=run.epoch.number)
    snapshot = ledger.snapshot(run)
    recover(ledger, snapshot)
    replica = Replica(context, Supervisor(), make_engine)
    by_name = {file.name: file for file in manifest.files}
    receipts = [one for one in ledger.receipts(snapshot) if one.rejected and one.file in by_name]
    for unit in [ledger.retry(one, by_name[one.file]) for one in receipts]:
        commit(unit, replica.answer(unit, prepare(unit, context)), context)
    recover(ledger, ledger.snapshot(run))
