"""What can be done about the damaged units of an output: found out without a change to it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from unipic.pipeline.audit.expectation import reached_with, recorded_job
from unipic.pipeline.audit.report import Report
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import JobError, ObjectMissing, OutputError, UniPicError
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.changes import changed, settled_in_place
from unipic.pipeline.output.layout import DATA, parse_part, receipt_path
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.preflight import preflight
from unipic.pipeline.records import ManifestFile, Receipt, Revision, Unit, UnitId
from unipic.pipeline.stages.engine import device_of
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.storage.parquet import read_part
from unipic.pipeline.storage.paths import is_remote, local_path
from unipic.pipeline.storage.storage import Storage


@dataclass(frozen=True)
class RepairPlan:
    """How the damaged units can be made again.

    Attributes:
        job: makes them again, with `files` alone; None where no unit can be.
        files: names of the manifest files that hold the units.
        restored: units whose receipt is sound: made again, their bytes are held against it, and put back if equal.
        reset: units whose receipt is damaged before any retry: it is set aside, and the unit is not done any more.
        redone: damaged units with retries, or in a pack: a new epoch in which they are not done.
        left: damaged units that cannot be made again → why not, and what to do about it.
    """

    job: Job | None = None
    files: frozenset[str] = frozenset()
    restored: frozenset[UnitId] = frozenset()
    reset: frozenset[UnitId] = frozenset()
    redone: frozenset[UnitId] = frozenset()
    left: dict[str, str] = field(default_factory=dict)

    @property
    def units(self) -> frozenset[UnitId]:
        return self.restored | self.reset | self.redone


def plan_repair(output_uri: str, storage: Storage, report: Report) -> RepairPlan:
    """What makes the damaged units again: everything that could refuse them is tried, and nothing is changed.

    The job is as `run.json` has it, save that limits that would end it early are lifted, and the micro-batch is the one
    the units had.

    Raises:
        StorageUnavailable: the store does not answer now, which says nothing of the units.
    """
    damaged = sorted(UnitId(unit) for unit in report.damaged_units)
    if not damaged:
        return RepairPlan()
    ledger = Ledger(output_uri, storage)
    try:
        run = ledger.recorded()
        run = run.with_files(settled_in_place(run.files, run.digests, storage))
        snapshot = ledger.snapshot(run)
        receipts = {unit: _receipt(ledger, snapshot, unit) for unit in damaged}
        job = _job(output_uri, storage, run, _micro_batch(ledger, snapshot, receipts.values()))
        if job.compute.gpus_per_replica not in (0, "auto") or job.model.device == "cuda":
            device_of(job)  # torch is not loaded for a job that needs no GPU
        context, manifest, _ = preflight(job, Storage(job.storage))
    except UniPicError as error:
        if error.retryable:
            raise
        return RepairPlan(left=dict.fromkeys(damaged, f"run.json's job cannot make them again: {error}"))
    files = {one.key: one for one in run.files}
    restored = {
        unit
        for unit, receipt in receipts.items()
        if receipt is not None and not _has_more(receipt.revision, unit, run) and unit not in report.distrusted_units
    }
    left: dict[str, str] = {}
    for unit in damaged:
        why = _file_fault(files[unit.file_key], manifest)
        if not why and unit not in restored:
            why = _loss(_readable_rows(ledger, files[unit.file_key], unit, run), context)
        if why:
            left[unit] = why
    possible = frozenset(damaged) - left.keys()
    latest = {unit: snapshot.revision(unit) for unit in possible - restored}
    redone = frozenset(unit for unit, revision in latest.items() if revision and _has_more(revision, unit, run))
    names = frozenset(files[unit.file_key].name for unit in possible)
    reset = possible - restored - redone
    return RepairPlan(job if possible else None, names, possible & restored, reset, redone, left)


def _job(output_uri: str, storage: Storage, run: Run, size: int | None) -> Job:
    """Raises OutputError where `run.json` does not say enough, or of another place."""
    job = reached_with(recorded_job(run), storage)
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
    """The output's address as the job spells it, where that is the same place; else as given."""
    there, here = (
        uri.rstrip("/") if is_remote(uri) else os.path.abspath(local_path(uri)) for uri in (job.output.uri, output_uri)
    )
    return job.output.uri if there == here else output_uri


def _has_more(revision: Revision, unit: UnitId, run: Run) -> bool:
    """Whether there is more to a unit than one commit and its own parts: a retry, or a pack."""
    return revision.number > 0 or run.packed.find(unit) is not None


def _receipt(ledger: Ledger, snapshot: Snapshot, unit: UnitId) -> Receipt | None:
    """The unit's receipt, if there is a sound one."""
    revision = snapshot.revision(unit)
    try:
        return ledger.receipt(unit, revision) if revision is not None else None
    except (OutputError, ObjectMissing):
        return None


def _micro_batch(ledger: Ledger, snapshot: Snapshot, damaged: Iterable[Receipt | None]) -> int | None:
    """Rows a micro-batch had in the damaged units, or else in another: rounding depends on it."""
    for receipt in (*damaged, *(_receipt(ledger, snapshot, unit) for unit in snapshot.units())):
        if receipt is not None and not receipt.resized and receipt.facts.micro_batch:
            return receipt.facts.micro_batch
    return None


def _file_fault(recorded: ManifestFile, manifest: Manifest) -> str:
    """Why units of this manifest file cannot be made again; "" where they can."""
    now = next((one for one in manifest.files if one.name == recorded.name), None)
    if now is None:
        return f"the manifest file {recorded.name} is gone. Put it back, or drop its rows with `unipic prune`."
    images = [name for one in manifest.replaced if one.name == recorded.name for name in one.images]
    if images or changed([recorded], [now]):
        what = f"images of the manifest ({', '.join(images[:5])})" if images else f"manifest file {recorded.name}"
        return f"{what} changed. Put back what was there, or make them again with `unipic run --changed redo`."
    return ""


def _readable_rows(ledger: Ledger, file: ManifestFile, unit: UnitId, run: Run) -> Unit:
    """Those rows of `unit` that can still be read, whatever its receipt says of them: they must not be lost."""
    rows: set[tuple[int, int]] = set()
    count = min(run.rows_per_unit, file.rows - unit.first_row)
    inside = range(unit.first_row, unit.first_row + count)
    pack = run.packed.find(unit)
    for path in ledger.list(DATA, suffix=".parquet"):
        named = parse_part(path)
        if not (named is not None and named.unit == unit) and not (pack is not None and path == pack.part.path):
            continue
        try:
            lineages = read_part(ledger.uri(path), ledger.storage, ["lineage"]).column("lineage").to_pylist()
            ours = [one for one in lineages if named is not None or one["source_file"] == file.name]
            rows |= {(one["source_row"], one["sample_index"]) for one in ours if one["source_row"] in inside}
        except (OutputError, TypeError, KeyError):  # nothing in it can be lost any more
            continue
    return Unit(file, unit.first_row, count, tuple(sorted(rows)))


def _loss(unit: Unit, context: RunContext) -> str:
    """Which of the rows `unit.only` could not be made again; "" where all could."""
    if not unit.only:
        return ""
    try:
        prepared = prepare(unit, context)
    except JobError as error:
        return str(error)
    for one in prepared.select(["row", "fault"]).to_pylist():
        if (fault := one["fault"]) is not None:
            where = f"row {one['row']} of {unit.file.name} would be lost: {fault['kind']}: {fault['message']}"
            remedy = f"Correct that; or delete {receipt_path(unit.id)} to have the unit made again without the row."
            return f"{where}{'' if where.endswith('.') else '.'} {remedy}"
    return ""
