"""Mends an output that its audit found wanting: forgets damaged units, and says which job does just them again.

Nothing is forgotten that cannot be made again from here: such a unit stays as it is, with the reason why.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from unipic.pipeline.audit.replay import recorded_job
from unipic.pipeline.audit.verify import SET_ASIDE, Report, planned_units
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import JobError, ObjectMissing, OutputError, UniPicError
from unipic.pipeline.execution.progress import OnProgress, Result
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.heartbeat import at_work
from unipic.pipeline.output.ledger import Ledger, part_of, receipt_path
from unipic.pipeline.output.run_record import Run, as_found, changed
from unipic.pipeline.preflight import preflight
from unipic.pipeline.records import ManifestFile, Unit
from unipic.pipeline.run import run
from unipic.pipeline.stages.commit import micro_batch
from unipic.pipeline.stages.engine import MakeEngine, UniPicEngine, device_of
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.storage.parquet import read_part
from unipic.pipeline.storage.paths import is_s3, join, local_path
from unipic.pipeline.storage.storage import Storage


@dataclass(frozen=True)
class Redo:
    """What can be done about the damaged units.

    Attributes:
        job: does them again, with `files` alone; None where no unit can be done again.
        files: names of the manifest files that hold `units`.
        units: damaged units that can be done again.
        left: damaged units that cannot → why not, and what to do about it.
        blocked: among those are damaged receipts, past which no run of the job gets.
    """

    job: Job | None = None
    files: frozenset[str] = frozenset()
    units: frozenset[str] = frozenset()
    left: dict[str, str] = field(default_factory=dict)
    blocked: bool = False


@dataclass(frozen=True)
class Repaired:
    """What `repair` did.

    Attributes:
        forgotten: damaged units that are to be done again.
        left: damaged units that were left untouched → why.
        swept: parts of superseded and interrupted tries that were deleted.
        set_aside: strangers' files that now are under `_unipic/set-aside/`.
        result: of the run that did the forgotten units again; None where there was nothing to do, or it was refused.
        refused: why that run was refused, although nothing spoke against it before; "" where it was not.
    """

    forgotten: int
    swept: int
    set_aside: int
    left: dict[str, str] = field(default_factory=dict)
    result: Result | None = None
    refused: str = ""


def redo(output_uri: str, storage: Storage, report: Report) -> Redo:
    """What does the damaged units again: everything that could refuse them is tried, and nothing is changed.

    The job is as `run.json` has it, save that limits that would end it early are lifted, and the micro-batch is the one
    the units had.

    Raises:
        StorageUnavailable: the store does not answer now, which says nothing of the units.
    """
    damaged = frozenset(report.damaged_units)
    if not damaged:
        return Redo()
    ledger = Ledger(output_uri, storage)
    try:
        run = as_found(ledger.recorded(), storage)
        job = _job(output_uri, storage, run, _micro_batch(ledger, report))
        if job.compute.gpus_per_replica not in (0, "auto") or job.model.device == "cuda":
            device_of(job)  # torch is not loaded for a job that needs no GPU
        context, manifest, _ = preflight(job, Storage(job.storage))
    except UniPicError as error:
        if error.retryable:
            raise
        why = f"run.json's job cannot do them: {error}"
        return Redo(left=dict.fromkeys(damaged, why), blocked=_blocked(ledger, damaged))
    planned = planned_units(run)
    known = {one.key: one for one in run.files}
    now = {one.name: one for one in manifest.files}
    stored = _stored(ledger, damaged)
    left: dict[str, str] = {}
    for unit_id in sorted(damaged):
        file = known[_key(unit_id)]
        why = _file_fault(file, manifest)
        if not why and (rows := stored.get(unit_id)):
            first_row = int(unit_id.rsplit("-", 1)[1])
            why = _loss(Unit(now[file.name], first_row, planned[unit_id], tuple(sorted(rows))), context)
        if why:
            left[unit_id] = why
    if blocked := _blocked(ledger, left):
        why = "a run of the job stops at the damaged receipt of a unit that cannot be done again: see to that one first"
        left |= dict.fromkeys(damaged - left.keys(), why)
    units = damaged - left.keys()
    files = frozenset(known[_key(unit)].name for unit in units)
    return Redo(job if units else None, files, units, left, blocked)


def repair(
    output_uri: str,
    storage: Storage,
    report: Report,
    *,
    on_cleared: Callable[[Repaired], None] = lambda _: None,
    on_progress: OnProgress = lambda _: None,
    stop: threading.Event | None = None,
    make_engine: MakeEngine = UniPicEngine,
) -> Repaired:
    """Do again the damaged units of `report` that can be done again, delete superseded parts, set strangers aside.

    Args:
        report: what `verify` found.
        on_cleared: called before units are done again, with what was done until then.
        stop: set it to end the run of the damaged units early.

    Raises:
        StorageUnavailable: the store does not answer now.
        UniPicError: something that no retry mends ended the run of the damaged units.
    """
    plan = redo(output_uri, storage, report)  # first: damaged units may be all there is of their rows
    done = clear(output_uri, storage, report, plan)
    on_cleared(done)
    if plan.job is None:
        return done
    try:
        result = run(plan.job, only=plan.files, on_progress=on_progress, stop=stop, make_engine=make_engine)
    except JobError as error:  # something changed since `redo` looked
        return replace(done, refused=str(error))
    return replace(done, result=result)


def clear(output_uri: str, storage: Storage, report: Report, plan: Redo) -> Repaired:
    """Forget `plan.units`, so that the next run of the job does them again; sweep; set `report.strangers` aside."""
    ledger = Ledger(output_uri, storage)
    # Receipts go first: a repair that dies in between leaves units to be done, never a done unit in pieces.
    for unit in sorted(plan.units):
        storage.delete(join(output_uri, receipt_path(unit)))
    for folder in ("data", "rejected") if plan.units else ():
        for one in storage.list(join(output_uri, folder), suffix=".parquet"):
            if part_of(one.uri)[0] in plan.units:
                storage.delete(one.uri)
    swept = 0 if plan.blocked else ledger.sweep(alone=not at_work(ledger))
    for path in report.strangers:
        uri = join(output_uri, path)
        storage.write(join(output_uri, SET_ASIDE, path), storage.read(uri))
        storage.delete(uri)
    return Repaired(len(plan.units), swept, len(report.strangers), plan.left)


def _job(output_uri: str, storage: Storage, run: Run, size: int | None) -> Job:
    """Raises OutputError where `run.json` does not say enough, or of another place."""
    job = recorded_job(run, storage)
    limits = {"until": None, "max_hours": None, "max_rejected": "100%"}
    compute: dict[str, Any] = {"replicas": job.compute.replicas.model_copy(update={"min": 1})}
    if job.compute.batch_size == "auto" and size:
        compute["batch_size"] = size
    changes = {
        "output": job.output.model_copy(update={"uri": _place(output_uri, job)}),
        "limits": job.limits.model_copy(update=limits),
        "compute": job.compute.model_copy(update=compute),
    }
    return job.model_copy(update=changes)


def _place(output_uri: str, job: Job) -> str:
    """The output's address: as the job has it, so that rows that name their pictures name them alike; else as given."""
    there, here = (
        uri.rstrip("/") if is_s3(uri) else os.path.abspath(local_path(uri)) for uri in (job.output.uri, output_uri)
    )
    if there == here:
        return job.output.uri
    if job.output.images == "files":
        remedy = "Move it back; or, where that is a relative path, give this command in the folder the job ran in."
        message = f"the output was moved from {job.output.uri}, and its rows name their pictures there"
        raise OutputError(message, remedy=remedy)
    return output_uri


def _micro_batch(ledger: Ledger, report: Report) -> int | None:
    """Rows a micro-batch had in the damaged units, or else in another: rounding depends on it."""
    for unit in sorted(ledger.done(), key=lambda unit: (unit not in report.damaged_units, unit)):
        try:
            receipt = ledger.receipt(unit)
        except OutputError:  # a damaged receipt is why we are here
            continue
        if not receipt.resized and (size := micro_batch(receipt, 0)):
            return size
    return None


def _blocked(ledger: Ledger, units: Collection[str]) -> bool:
    for unit in units:
        try:
            ledger.receipt(unit)
        except ObjectMissing:
            continue
        except OutputError:
            return True
    return False


def _file_fault(recorded: ManifestFile, manifest: Manifest) -> str:
    """Why units of this manifest file cannot be done again; "" where they can."""
    now = next((one for one in manifest.files if one.name == recorded.name), None)
    if now is None:
        return f"the manifest file {recorded.name} is gone. Put it back, or drop its rows with `unipic prune`."
    pictures = [name for one in manifest.replaced if one.name == recorded.name for name in one.images]
    if pictures or changed([recorded], [now]):
        what = f"pictures of the manifest ({', '.join(pictures[:5])})" if pictures else f"manifest file {recorded.name}"
        return f"{what} changed. Put back what was there, or do them again with `unipic run --changed redo`."
    return ""


def _stored(ledger: Ledger, units: Collection[str]) -> dict[str, set[tuple[int, int]]]:
    """Unit → (row, sample) of its rows that can be read, whatever its receipt says of them."""
    found: dict[str, set[tuple[int, int]]] = {}
    for one in ledger.storage.list(join(ledger.output_uri, "data"), suffix=".parquet"):
        unit, _ = part_of(one.uri)
        if unit not in units:
            continue
        try:
            lineages = read_part(one.uri, ledger.storage, ["lineage"]).column("lineage").to_pylist()
        except OutputError:  # nothing in it can be lost any more
            continue
        found.setdefault(unit, set()).update((row["source_row"], row["sample"]) for row in lineages)
    return found


def _loss(unit: Unit, context: RunContext) -> str:
    """Which of the rows `unit.only` could not be made again; "" where all could."""
    try:
        prepared = prepare(unit, context)
    except JobError as error:
        return str(error)
    for one in prepared.select(["row", "fault"]).to_pylist():
        if (fault := one["fault"]) is not None:
            where = f"row {one['row']} of {unit.file.name} would be lost: {fault['kind']}: {fault['message']}"
            remedy = f"Mend that; or delete {receipt_path(unit.id)} to have the unit done again without the row."
            return f"{where}{'' if where.endswith('.') else '.'} {remedy}"
    return ""


def _key(unit_id: str) -> str:
    return unit_id.split("-", 1)[0]
