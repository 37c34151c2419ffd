"""What a job would do, found without running it: no Ray, no weights except for a probe, and nothing is left behind.

Whether the output can be written is tested with an object that is deleted again, like folders created for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from unipic.pipeline import probe as probing
from unipic.pipeline.errors import CheckpointError, ManifestError
from unipic.pipeline.job import Job
from unipic.pipeline.machine import this_machine
from unipic.pipeline.manifests.columns import bindings
from unipic.pipeline.manifests.ids import LOOKED_AT_ROWS, IdCount, count_ids
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.manifests.reading import head
from unipic.pipeline.output.changes import removed, rows_stay
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.preflight import Sound, examine
from unipic.pipeline.probe import OnStep, Probe
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.stages.checkpoint_cache import CheckpointInfo
from unipic.pipeline.stages.engine import MakeEngine, UniPicEngine
from unipic.pipeline.stages.forecast import Needs, PromptSample, needs, sample_prompts
from unipic.pipeline.stages.parts import renamed
from unipic.pipeline.storage.storage import Storage

HEAD_ROWS = 3


@dataclass(frozen=True)
class Plan:
    """What would run.

    Attributes:
        rows: of the manifest; `rows_out` of the output (rows × samples).
        ids: None without an id column.
        settings: params, replicas and dtype of the job, with every default filled in.
        needs: None if the checkpoint does not record its sizes.
        prompts: a sample of them, held against the checkpoint; None if it has no tokenizer.
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
    settings: dict[str, Any] = field(default_factory=dict)
    needs: Needs | None = None
    prompts: PromptSample | None = None
    probe: Probe | None = None


def plan(
    job: Job,
    storage: Storage,
    *,
    all_ids: bool = False,
    probe: bool = False,
    make_engine: MakeEngine = UniPicEngine,
    on_step: OnStep = lambda _: None,
) -> Plan:
    """Examines everything `job` names.

    Args:
        all_ids: check the ids of all rows, not only of the first ones.
        probe: also load a replica here and run a part of the job, to estimate its cost.
        on_step: called with each step of the probe.

    Raises:
        JobError: whatever `run` refuses, with all faults at once, except weights that do not match their digests.
    """
    on_step("reading manifest, checkpoint and output")
    sound = examine(job, storage, may_have_changed=False)
    job, info, manifest, record = sound.job, sound.info, sound.manifest, sound.record
    work = probing.Work(job, manifest, info.digest, sound.rows_per_unit, sound.done())
    planned, units_done = work.units()
    conditional = storage.conditional(job.output.uri)
    notes = _notes(job, manifest, record, conditional=conditional)
    forecast, sample = _forecast(sound, storage, notes)
    return Plan(
        name=job.name,
        task=job.task,
        files=manifest.files,
        rows=manifest.rows,
        rows_out=manifest.rows * job.samples_per_row,
        units=planned,
        units_done=units_done,
        rows_per_unit=sound.rows_per_unit,
        columns={field.name: str(field.type) for field in manifest.schema},
        bound=bindings(job),
        head=head(manifest, HEAD_ROWS, storage),
        output=job.output.uri,
        output_state="new" if record is None else "done" if units_done == planned else "begun",
        conditional_puts=conditional,
        checkpoint=info,
        ids=_count_ids(sound, storage, notes, all_ids=all_ids),
        notes=notes,
        settings=_settings(job),
        needs=forecast,
        prompts=sample,
        probe=probing.probe(work, make_engine, on_step) if probe else None,
    )


def _notes(job: Job, manifest: Manifest, record: Run | None, *, conditional: bool) -> list[str]:
    notes = [*manifest.left_out, *renamed(job)]
    if record is not None and (gone := removed(record.files, manifest.files)):
        notes.append(rows_stay(gone))
    if not conditional:
        notes.append(
            "This store ignores put-if-absent, so it cannot decide between two runs that commit one unit at the same "
            "moment. One run at a time is as safe as elsewhere."
        )
    return notes


def _settings(job: Job) -> dict[str, Any]:
    replicas = job.compute.replicas
    return {"params": job.params.model_dump(mode="json"), "replicas": replicas.model_dump(), "dtype": job.model.dtype}


def _count_ids(sound: Sound, storage: Storage, notes: list[str], *, all_ids: bool) -> IdCount | None:
    """Repeated and missing ids; None without an id column, or with a note if it cannot be read."""
    column = sound.job.input.columns.id
    if column is None:
        return None
    try:
        return count_ids(sound.manifest, column, storage, most_rows=None if all_ids else LOOKED_AT_ROWS)
    except ManifestError as error:  # the run rejects rows that cannot be read
        notes.append(f"ids were not counted: {error.message}")
        return None


def _forecast(sound: Sound, storage: Storage, notes: list[str]) -> tuple[Needs | None, PromptSample | None]:
    """What replicas need and which prompts they reject; adds notes on what the user should know."""
    job = sound.job
    if "config.json" not in sound.info.files:
        return None, None
    try:
        forecast = needs(job, storage, this_machine())
        sample = sample_prompts(job, sound.manifest, sound.info, storage)
    except CheckpointError as error:
        notes.append(f"memory and prompts were not checked: {error.message}")
        return None, None
    if forecast.note:
        notes.append(forecast.note)
    if forecast.far_from_trained:
        trained = forecast.trained_image_size
        notes.append(f"image_size {job.image_size} is far from {trained}, the size this checkpoint was trained for")
    if sample.rejected:
        share = f"{sample.rejected:,} of {sample.rows:,} sampled prompts would be rejected"
        over = sample.rejected > job.limits.rejected_allowed(sample.rows)
        allowed = f"limits.max_rejected is {job.limits.max_rejected}"
        limit = f"; {allowed}, so expect the run to stop with exit code 2" if over else ""
        notes.append(f"{share}, e.g. {sample.example}{limit}")
    return forecast, sample
