"""A whole job without Ray: the same stage functions, the same commit, one process. For drills in the hundreds."""

from __future__ import annotations

from pipeline.finish import finish
from pipeline.job import Job
from pipeline.manifest import units
from pipeline.prepare import prepare
from pipeline.replica import MakeEngine, Replica
from pipeline.run import preflight
from pipeline.storage import Storage
from pipeline.supervisor import Supervisor
from tests.fakes import FakeEngine


def run_here(job: Job, *, make_engine: MakeEngine = FakeEngine, storage: Storage | None = None) -> int:
    """Do what is left of `job`; returns how many units that were."""
    context, manifest, ledger = preflight(job, storage or Storage(job.storage))
    record, manifest = ledger.open(job, manifest, context.checkpoint_digest)
    replica = Replica(context, Supervisor(), make_engine)
    done = ledger.done()
    left = [unit for unit in units(manifest, record.rows_per_unit) if unit.id not in done]
    for unit in left:
        finish(unit, replica.answer(unit, prepare(unit, context)), context)
    return len(left)
