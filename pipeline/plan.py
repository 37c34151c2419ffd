"""What a job would do, found out without doing it: no Ray, no model (save for a probe), nothing left behind.

Whether the output can be written is tried with an object that is deleted again, and so are folders made for it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.columns import bindings
from unipic.pipeline.manifests.ids import LOOKED_AT_ROWS, IdCount, count_ids
from unipic.pipeline.manifests.manifest import Manifest, units
from unipic.pipeline.manifests.reading import head
from unipic.pipeline.output.run_record import Run, removed, rows_stay
from unipic.pipeline.preflight import examine
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.stages.checkpoint_cache import CheckpointInfo
from unipic.pipeline.stages.engine import MakeEngine, UniPicEngine
from unipic.pipeline.stages.infer import Replica
from unipic.pipeline.stages.parts import data_part, data_rows, renamed
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.storage.storage import Storage
from unipic.pipeline.supervision.client import LocalClient

HEAD_ROWS = 3


@dataclass(frozen=True)
class Probe:
    """One unit, done here and thrown away.

    Attributes:
        rows: output rows it gave, rejected ones included.
        load_s: seconds to load the replica.
        unit_s: seconds from manifest rows to encoded part.
        part_bytes: size of its data part.
        total_s: what all that is left would take on `replicas` replicas like this one.
        total_bytes: what all output would weigh.
    """

    rows: int
    rejected: int
    load_s: float
    unit_s: float
    part_bytes: int
    replicas: int
    total_s: float
    total_bytes: int


@dataclass(frozen=True)
class Plan:
    """What would run.

    `rows` are manifest rows, `rows_out` output rows (rows × samples). `ids` is None where no id column is mapped.
    """

    name: str
    task: str
    files: tuple[ManifestFile, ...]
    rows: int
    rows_out: int
    units: int
    units_done: int
    rows_per_unit: int
    columns: dict[str, str]
    bound: dict[str, str]
    head: list[dict[str, Any]]
    output: str
    output_state: str
    conditional_puts: bool
    checkpoint: CheckpointInfo
    notes: list[str]
    ids: IdCount | None = None
    probe: Probe | None = None


def plan(
    job: Job,
    storage: Storage,
    *,
    all_ids: bool = False,
    probe: bool = False,
    make_engine: MakeEngine = UniPicEngine,
) -> Plan:
    """Look at everything `job` names.

    Args:
        all_ids: where an id column is mapped, count repeated and missing ids in all rows, not just the first.
        probe: also load a replica here and do the first unit that is left, to say what the job costs.

    Raises:
        JobError: what `run` would refuse, `plan` refuses alike, all faults at once; save weights that do not match
            their digests, which it does not read.
    """
    sound = examine(job, storage, may_have_changed=False)
    job, info, manifest, ledger, record = sound.job, sound.info, sound.manifest, sound.ledger, sound.record
    rows_per_unit = record.rows_per_unit if record else job.rows_per_unit
    done = ledger.done()
    ids = [unit.id for unit in units(manifest, rows_per_unit)]
    units_done = sum(one in done for one in ids)
    conditional = storage.conditional(job.output.uri)
    column = job.input.columns.id
    notes = _notes(job, manifest, record, conditional=conditional)
    try:
        most_rows = None if all_ids else LOOKED_AT_ROWS
        id_count = count_ids(manifest, column, storage, most_rows=most_rows) if column else None
    except ManifestError as error:  # rows that cannot be read are rejected when the run meets them
        id_count = None
        notes.append(f"ids were not counted: {error.message}")
    return Plan(
        name=job.name,
        task=job.task,
        files=manifest.files,
        rows=manifest.rows,
        rows_out=manifest.rows * job.samples_per_row,
        units=len(ids),
        units_done=units_done,
        rows_per_unit=rows_per_unit,
        columns={field.name: str(field.type) for field in manifest.schema},
        bound=bindings(job),
        head=head(manifest, HEAD_ROWS, storage),
        output=job.output.uri,
        output_state="new" if record is None else "done" if units_done == len(ids) else "begun",
        conditional_puts=conditional,
        checkpoint=info,
        notes=notes,
        ids=id_count,
        probe=_probe(job, manifest, rows_per_unit, done, info, make_engine) if probe else None,
    )


def _notes(job: Job, manifest: Manifest, record: Run | None, *, conditional: bool) -> list[str]:
    notes = [*manifest.left_out, *renamed(job)]
    if record is not None and (gone := removed(record, manifest)):
        notes.append(rows_stay(gone))
    if not conditional:
        notes.append(
            "This store ignores put-if-absent. Two runs of the job at once stay safe all the same: "
            "they write the same bytes to the same names."
        )
    return notes


def _probe(
    job: Job, manifest: Manifest, rows_per_unit: int, done: set[str], info: CheckpointInfo, make_engine: MakeEngine
) -> Probe | None:
    every = list(units(manifest, rows_per_unit))
    left = [unit for unit in every if unit.id not in done]
    unit = (left or every)[0]
    if not unit.file.uri:
        return None  # a folder of pictures nobody has listed yet has no file to read rows from
    context = RunContext(job, info.digest, manifest.columns)
    started = time.monotonic()
    replica = Replica(context, LocalClient(), make_engine)
    loaded = time.monotonic()
    answered = replica.answer(unit, prepare(unit, context))
    rows, _ = data_rows(unit, answered, context)
    part = data_part(unit, rows, answered, context) or b""
    unit_s = time.monotonic() - loaded
    per_row_s = unit_s / answered.num_rows
    rows_left = sum(one.rows for one in left) * job.samples_per_row
    return Probe(
        rows=answered.num_rows,
        rejected=answered.num_rows - len(rows),
        load_s=loaded - started,
        unit_s=unit_s,
        part_bytes=len(part),
        replicas=job.compute.replicas.max,
        total_s=rows_left * per_row_s / job.compute.replicas.max,
        total_bytes=int(len(part) / answered.num_rows * manifest.rows * job.samples_per_row),
    )
