"""A whole run: refuse what cannot work, claim the output, run what is left, compare the result with storage."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial

from unipic.pipeline.catalog.card import Counts, write_card
from unipic.pipeline.catalog.events import Ending, emit
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import StorageError, UniPicError
from unipic.pipeline.execution.capacity import check_capacity, with_gpus
from unipic.pipeline.execution.conclusion import conclude, raise_fatal
from unipic.pipeline.execution.driver import Driver
from unipic.pipeline.execution.graph import COMMIT_CPUS, PREPARE_CPUS, RayExecutor
from unipic.pipeline.execution.node_check import check_nodes
from unipic.pipeline.execution.progress import OnProgress, Progress, Result
from unipic.pipeline.execution.ray_cluster import ray_cluster, supervisor_actor
from unipic.pipeline.execution.ray_exposure import exposure
from unipic.pipeline.execution.reporter import Reporter
from unipic.pipeline.execution.stop_policy import StopPolicy
from unipic.pipeline.execution.tally import Tally
from unipic.pipeline.execution.work_queue import WorkQueue
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import Manifest, units
from unipic.pipeline.output.changes import removed, rows_stay
from unipic.pipeline.output.claims import claim
from unipic.pipeline.output.compaction import compact
from unipic.pipeline.output.heartbeat import presence
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.packs import Pack, PackIndex
from unipic.pipeline.output.reconciliation import Reconciliation, reconcile
from unipic.pipeline.output.recovery import recover
from unipic.pipeline.output.seal import seal_again
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.preflight import preflight
from unipic.pipeline.records import Unit, UnitId
from unipic.pipeline.stages.engine import MakeEngine, UniPicEngine
from unipic.pipeline.stages.parts import renamed
from unipic.pipeline.storage.storage import Storage


@dataclass(frozen=True)
class Work:
    """What is left of a job.

    Attributes:
        known: the commits that this run has seen, from one listing of the receipts.
    """

    context: RunContext
    manifest: Manifest
    ledger: Ledger
    known: Snapshot
    tally: Tally
    queue: WorkQueue


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
    again: Collection[str] = (),
) -> Result:
    """Do what is left of `job`.

    Args:
        address: of a Ray cluster; None starts a private one on this machine.
        stop: set it to end early: no unit begins any more, those in flight get `limits.grace_s`.
        retry_rejected: also attempt rejected rows again, and add those that succeed to the output.
        redo_changed: do the units of manifest files that changed under their name again, instead of refusing.
        only: names of the manifest files to look at; default: all.
        again: units that are done and are made once more: bytes equal to those committed replace what is damaged.

    Raises:
        JobError: refused before anything started.
        UniPicError: the run ended early. Committed units are safe, the same call resumes.
    """
    on_progress(Progress("planning"))
    context, manifest, ledger = preflight(job, Storage(job.storage))
    job = context.job
    if only is not None:
        manifest = replace(manifest, files=tuple(one for one in manifest.files if one.name in only))
    record, manifest = claim(ledger, job, manifest, context.checkpoint_digest, redo_changed=redo_changed)
    context = replace(context, epoch=record.epoch.number)
    known = ledger.snapshot(record)
    recover(ledger, known)
    work = what_is_left(context, manifest, ledger, known, retry_rejected=retry_rejected, again=again)
    policy = _stop_policy(work, stop or threading.Event())
    reporter = Reporter(on_progress, work.tally, policy)
    for said in (*manifest.left_out, *renamed(job)):
        reporter.note(said)
    if only is None and (gone := removed(record.files, manifest.files)):
        reporter.note(rows_stay(gone))
    if work.tally.units_left and not policy.check(work.tally, None):
        result = _execute(work, policy, reporter, address=address, verbose=verbose, make_engine=make_engine)
    else:
        result = finish(work, policy, reporter)
    _tidy(work, result, reporter)
    reporter.report("done")
    return result


def _tidy(work: Work, result: Result, reporter: Reporter) -> None:
    """What the job wants done to a complete output."""
    _compact(work, result, reporter)
    if work.context.job.output.seal and result.outcome == "done":
        reporter.note(seal_again(work.ledger))


def _compact(work: Work, result: Result, reporter: Reporter) -> None:
    """Merge the parts of a complete output, if the job says so. It may be left undone: the output is whole as it is."""
    part_mb = work.context.job.output.part_mb
    if part_mb is None or result.outcome == "stopped":
        return
    try:
        done = compact(work.ledger, part_mb=part_mb)
    except UniPicError as error:
        reporter.note(f"the parts were not merged: {error}")
        return
    if done.packs:
        reporter.note(f"{done.files_before:,} data files are now {done.files_after:,}")


def _stop_policy(work: Work, stop: threading.Event) -> StopPolicy:
    tally = work.tally
    return StopPolicy(work.context.job, tally.rows_total, stop_requested=stop.is_set, resumes=tally.units_done > 0)


def what_is_left(
    context: RunContext,
    manifest: Manifest,
    ledger: Ledger,
    known: Snapshot,
    *,
    retry_rejected: bool = False,
    again: Collection[str] = (),
) -> Work:
    """Compare the manifest with the receipts in an output that was claimed and recovered."""

    def planned() -> Iterator[Unit]:
        return units(manifest, known.rows_per_unit)

    tally = Tally(rows_total=manifest.rows * context.job.samples_per_row, units_total=0, known=known)
    merged = [] if again else _merged(known, manifest, retry_rejected=retry_rejected)
    for pack in merged:
        tally.add_pack(pack)
    counted = PackIndex(merged)

    def done() -> Iterator[UnitId]:
        for unit in planned():
            tally.units_total += 1
            if unit.id in known and counted.find(unit.id) is None:
                yield unit.id

    later: list[Unit] = []
    by_name = {file.name: file for file in manifest.files}
    for receipt in ledger.receipts(known, done()):
        tally.add_earlier(receipt)
        if receipt.unit in again:
            tally.take_back(receipt)
        elif retry_rejected and receipt.rejected:
            tally.take_back(receipt)
            later.append(ledger.retry(receipt, by_name[receipt.file]))
    later += [known.ready(unit) for unit in planned() if unit.id in again] if again else []
    return Work(context, manifest, ledger, known, tally, WorkQueue(known.left(planned()), later))


def _merged(known: Snapshot, manifest: Manifest, *, retry_rejected: bool) -> list[Pack]:
    """Packs whose own counts stand for their receipts: all their units are of this manifest, and none is to be done."""
    keys = {file.key for file in manifest.files}
    return [
        pack
        for pack in known.closed_packs()
        if all(one.file_key in keys for one in pack.segments) and not (retry_rejected and pack.rejected)
    ]


def _execute(
    work: Work, policy: StopPolicy, reporter: Reporter, *, address: str | None, verbose: bool, make_engine: MakeEngine
) -> Result:
    """Start Ray, do the work, keep the output's events and its heartbeat."""
    job, note = work.context.job, reporter.note
    needed = job.compute.replicas.min * job.compute.cpus_per_replica + PREPARE_CPUS + COMMIT_CPUS
    with emit(work.ledger, job, work.manifest, warn=note) as closing, presence(work.ledger, warn=note) as others:
        for other in others:
            note(f"another run of this job is at work here ({other}); both end with the same output")
        reporter.report("starting")
        with ray_cluster(address, cpus=needed, verbose=verbose, on_wait=reporter.waiting) as watch:
            look = partial(_look_at_cluster, work, private=watch.processes is not None, can_grow=address is not None)
            context, messages = watch.call(look, "looking at its machines")
            for message in messages:
                note(message)
            with supervisor_actor(watch) as supervisor:
                executor = RayExecutor(context, supervisor, make_engine, watch)
                Driver(executor, work.queue, work.tally, policy, reporter, grace_s=job.limits.grace_s).drive()
        result = finish(work, policy, reporter)
        closing(Ending(result.outcome, result.ok, result.rejected, result.message))
        return result


def _look_at_cluster(work: Work, *, private: bool, can_grow: bool) -> tuple[RunContext, list[str]]:
    """What the connected cluster decides filled in, and what the user should know of that cluster.

    Args:
        private: it has this machine alone, with this very package.
        can_grow: machines may join later.

    Raises:
        JobError: the cluster cannot do the job.
    """
    job, placement = with_gpus(work.context.job)
    context = replace(work.context, job=job)
    messages = [exposure(), placement]
    if not private:
        messages.append(check_nodes(context, work.manifest.files[0]))
    messages.append(check_capacity(job, can_grow=can_grow))
    return context, [message for message in messages if message]


def finish(work: Work, policy: StopPolicy, reporter: Reporter) -> Result:
    """Publish what is committed, hold storage against what this run counted, and say how it ended."""
    if policy.fatal is not None:
        raise_fatal(policy.fatal)
    output = work.context.job.output.uri
    seen = reconciled(work)  # first: what it counts is published then, whichever run committed it
    published = publish_the_rest(work, policy, reporter)
    result = conclude(work.tally, policy, seen, seconds=reporter.seconds, output=output, published=published)
    if note := bring_card_up_to_date(work, seen):
        reporter.note(note)
    return result


def bring_card_up_to_date(work: Work, seen: Reconciliation) -> str:
    """Write the output's data-set card. Returns why it could not be written, or ""."""
    run, looked_at = work.known.run, {file.key for file in work.manifest.files}
    others = (unit for unit in work.known.units() if unit.file_key not in looked_at)
    ok, rejected = seen.ok, seen.rejected
    try:
        for receipt in work.ledger.receipts(work.known, others):  # of files that are gone, or that this run was not for
            ok, rejected = ok + receipt.ok, rejected + receipt.rejected
    except UniPicError as error:
        return f"the data-set card is not up to date: {error.message}"
    rows = sum(file.rows for file in run.files) * run.samples_per_row
    return write_card(work.ledger, work.context.job, run, Counts(rows, ok, rejected))


def publish_the_rest(work: Work, policy: StopPolicy, reporter: Reporter) -> bool:
    """Publish what workers committed and did not get to publish; False where that is left to the next run.

    Raises:
        StorageError: it cannot be, in a run that had no other reason to stop.
    """
    try:
        recover(work.ledger, work.ledger.snapshot(work.known.run))
    except StorageError as error:
        if not policy.stopping:
            raise
        reporter.note(f"committed parts are not published yet, the next run publishes them: {error.message}")
        return False
    return True


def reconciled(work: Work) -> Reconciliation:
    """Compare what this run counted with the receipts."""
    planned = (unit.id for unit in units(work.manifest, work.known.rows_per_unit))
    tally = work.tally
    return reconcile(
        planned, work.ledger, work.known, ok=tally.ok, rejected=tally.rejected, taken_back=tally.taken_back
    )
