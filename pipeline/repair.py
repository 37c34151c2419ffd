"""Mends an output that its audit found wanting: forgets damaged units, and says which job does just them again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.company import at_work
from pipeline.errors import OutputError
from pipeline.job import AnyJob, Job
from pipeline.ledger import META, Ledger, Run, part_of, receipt_path
from pipeline.storage import Storage, join
from pipeline.verify import SET_ASIDE, UNEXPECTED, Report

OURS_ALONE = ("data/", "rejected/", "images/", f"{META}/")
SET_ASIDE_MAX_BYTES = 1 << 30  # objects are moved through memory


@dataclass(frozen=True)
class Repaired:
    """What `repair` did.

    Attributes:
        forgotten: damaged units that are to be done again.
        swept: parts of superseded and interrupted tries that were deleted.
        set_aside: strangers' files that now are under `_unipic/set-aside/`.
    """

    forgotten: int
    swept: int
    set_aside: int


def repair(output_uri: str, storage: Storage, report: Report) -> Repaired:
    """Forget the damaged units, so that the next run of the job does them again; sweep; set strangers' files aside.

    Strangers' files elsewhere than in the folders that are ours alone stay where they are: they may be another output.
    """
    ledger = Ledger(output_uri, storage)
    damaged = report.damaged_units
    # Receipts go first: a repair that dies in between leaves units to be done, never a done unit in pieces.
    for unit in sorted(damaged):
        storage.delete(join(output_uri, receipt_path(unit)))
    for folder in ("data", "rejected") if damaged else ():
        for one in storage.list(join(output_uri, folder), suffix=".parquet"):
            if part_of(one.uri)[0] in damaged:
                storage.delete(one.uri)
    swept = ledger.sweep(alone=not at_work(ledger))
    strangers = [one.where for one in report.problems if one.kind == UNEXPECTED and one.where.startswith(OURS_ALONE)]
    moved = sum(_set_aside(output_uri, storage, path) for path in strangers)
    return Repaired(len(damaged), swept, moved)


def _set_aside(output_uri: str, storage: Storage, path: str) -> bool:
    """Move a stranger's file out of the way, unless it is too large to be carried."""
    uri = join(output_uri, path)
    if storage.info(uri).size_bytes > SET_ASIDE_MAX_BYTES:
        return False
    storage.write(join(output_uri, SET_ASIDE, path), storage.read(uri))
    storage.delete(uri)
    return True


def redo(output_uri: str, storage: Storage, report: Report) -> tuple[Job, set[str]]:
    """What does the damaged units again; to be asked before `repair` forgets them.

    Returns:
        The job as `run.json` has it, and the names of the manifest files that hold damaged units. Limits that would end
        it early are lifted, and the micro-batch is the one the units had.

    Raises:
        OutputError: `run.json` does not say enough.
    """
    ledger = Ledger(output_uri, storage)
    run = ledger.recorded()
    try:
        job: Job = TypeAdapter(AnyJob).validate_python(run.job, strict=False)
    except ValidationError as error:
        raise OutputError(f"run.json holds no job of this version: {error.error_count()} faults in it") from error
    keys = {unit.split("-", 1)[0] for unit in report.damaged_units}
    limits = {"until": None, "max_hours": None, "max_rejected": "100%"}
    compute: dict[str, Any] = {"replicas": job.compute.replicas.model_copy(update={"min": 1})}
    if job.compute.batch_size == "auto" and (size := _micro_batch(ledger, report)):
        compute["batch_size"] = size
    changes = {
        "output": job.output.model_copy(update={"uri": _place(output_uri, run, job)}),
        "limits": job.limits.model_copy(update=limits),
        "compute": job.compute.model_copy(update=compute),
        "storage": job.storage.model_copy(update=storage.options.model_dump(exclude_defaults=True)),
    }
    return job.model_copy(update=changes), {one.name for one in run.files if one.key in keys}


def _place(output_uri: str, run: Run, job: Job) -> str:
    """The output's address: as the job has it, so that rows that name their pictures name them alike; else as given."""
    there, here = job.output.uri, output_uri
    if "://" not in there and "://" not in here:
        there, here = os.path.abspath(there), os.path.abspath(here)
    if there.rstrip("/") == here.rstrip("/"):
        return job.output.uri
    if job.output.images == "files":
        raise OutputError(f"the output was moved from {job.output.uri}, and its rows name their pictures there")
    return output_uri


def _micro_batch(ledger: Ledger, report: Report) -> int | None:
    """Rows a micro-batch had in the damaged units, or else in another: rounding depends on it."""
    for unit in sorted(ledger.done(), key=lambda unit: (unit not in report.damaged_units, unit)):
        try:
            receipt = ledger.receipt(unit)
        except OutputError:  # a damaged receipt is why we are here
            continue
        if not receipt.resized and "micro_batch" in receipt.facts:
            return int(receipt.facts["micro_batch"])
    return None
