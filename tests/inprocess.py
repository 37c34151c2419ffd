"""A whole job without Ray: the same stage functions, the same commit, one process. For drills in the hundreds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tests.fakes import FakeEngine
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.preflight import preflight
from unipic.pipeline.stages.commit import finish
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
) -> int:
    """Do what is left of `job`; returns how many units that were."""
    context, manifest, ledger = preflight(job, storage or Storage(job.storage))
    if only is not None:
        manifest = replace(manifest, files=tuple(one for one in manifest.files if one.name in only))
    record, manifest = ledger.open(job, manifest, context.checkpoint_digest)
    ledger.sweep()
    replica = Replica(context, Supervisor(), make_engine)
    done = ledger.done()
    left = [unit for unit in units(manifest, record.rows_per_unit) if unit.id not in done]
    for unit in (replace(unit, again=unit.id in ledger.begun) for unit in left):
        finish(unit, replica.answer(unit, prepare(unit, context)), context)
    return len(left)


def retry_here(job: Job, *, make_engine: MakeEngine = FakeEngine, storage: Storage | None = None) -> None:
    """Try the rejected rows of `job` once more."""
    context, manifest, ledger = preflight(job, storage or Storage(job.storage))
    ledger.sweep()
    replica = Replica(context, Supervisor(), make_engine)
    for _, unit in ledger.retries(manifest.files):
        finish(unit, replica.answer(unit, prepare(unit, context)), context)
