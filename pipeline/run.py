"""A whole run: refuse what cannot work, claim the output, drive what is left, hold the result against storage."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import replace

from unipic.pipeline.execution.capacity import check_room, with_gpus
from unipic.pipeline.execution.driver import Driver
from unipic.pipeline.execution.graph import FINISH_CPUS, PREPARE_CPUS, cluster
from unipic.pipeline.execution.progress import OnProgress, Progress, Result
from unipic.pipeline.execution.ray_exposure import exposure
from unipic.pipeline.job import Job
from unipic.pipeline.output.events import emit
from unipic.pipeline.output.heartbeat import presence
from unipic.pipeline.output.run_record import removed, rows_stay
from unipic.pipeline.preflight import preflight
from unipic.pipeline.stages.engine import MakeEngine, UniPicEngine
from unipic.pipeline.storage.storage import Storage


def run(
    job: Job,
    *,
    address: str | None = None,
    on_progress: OnProgress = lambda _: None,
    stop: threading.Event | None = None,
    verbose: bool = False,
    make_engine: MakeEngine = UniPicEngine,
    retry_rejected: bool = False,
    redo_changed: bool = False,
    only: Collection[str] | None = None,
) -> Result:
    """Do what is left of `job`.

    Args:
        retry_rejected: also try rejected rows again, and fold those that go well into the output.
        redo_changed: do the units of manifest files that changed under their name again, instead of refusing.
        only: names of the manifest files to look at; default: all.
        address: of a Ray cluster; None starts a private one on this machine.
        stop: set it to end early: no new units, those in flight get `limits.grace_s`.

    Raises:
        JobError: refused before anything started.
        UniPicError: something that no retry mends ended the run; what is committed stays, the same command resumes.
    """
    on_progress(Progress("planning"))
    context, manifest, ledger = preflight(job, Storage(job.storage))
    job = context.job
    if only is not None:
        manifest = replace(manifest, files=tuple(one for one in manifest.files if one.name in only))
    record, manifest = ledger.open(job, manifest, context.checkpoint_digest, redo_changed=redo_changed)
    ledger.sweep()
    driver = Driver(context, manifest, ledger, record.rows_per_unit, on_progress, stop or threading.Event())
    if retry_rejected:
        driver.take_back(list(ledger.retries(manifest.files)))
    if only is None and (gone := removed(record, manifest)):
        driver.note(rows_stay(gone))
    if driver.units_left and not driver.asked_to_stop():
        result = _drive(driver, job, address=address, verbose=verbose, make_engine=make_engine)
    else:
        result = driver.result()
    on_progress(driver.progress("done"))
    return result


def _drive(driver: Driver, job: Job, *, address: str | None, verbose: bool, make_engine: MakeEngine) -> Result:
    """Start Ray, do the work, tell whoever watches the output's events and its other runs."""
    needed = job.compute.replicas.min * job.compute.cpus_per_replica + PREPARE_CPUS + FINISH_CPUS
    ledger, note = driver.ledger, driver.note
    with emit(ledger, job, driver.manifest, warn=note) as closing, presence(ledger, warn=note) as others:
        for other in others:
            driver.note(f"another run of this job is at work here ({other}); both end with the same output")
        driver.on_progress(driver.progress("starting"))
        with cluster(address, cpus=needed, verbose=verbose) as supervisor:
            job, placed = with_gpus(job)
            driver.context = replace(driver.context, job=job)
            for said in (exposure(), placed, check_room(job, can_grow=address is not None)):
                if said:
                    driver.note(said)
            driver.drive(supervisor, make_engine)
        result = driver.result()
        closing(result.outcome)
        return result
