"""What `run.json` and the epochs say that every row of an output must be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from unipic.pipeline.errors import OutputError, is_address
from unipic.pipeline.job import AnyJob, EditParams, ImageParams, Job
from unipic.pipeline.lineage import derive_seed, from_row, identity, recompute_id, row_params
from unipic.pipeline.manifests.columns import bindings
from unipic.pipeline.output.changes import differences
from unipic.pipeline.output.layout import parse_part
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Epoch, Run, fingerprint_fields, is_listing
from unipic.pipeline.records import OUTPUT_VERSION, Revision, UnitId
from unipic.pipeline.stages.parts import SUFFIX, data_schema
from unipic.pipeline.storage.storage import Storage

PROMPT_COLUMN = {"generate": "prompt", "edit": "instruction", "caption": "question"}


class Expectation:
    """The recorded job, ready to hold rows against it.

    Raises:
        OutputError: `run.json` holds no job of this version, or one that is not the job of its fingerprint.
    """

    def __init__(self, run: Run, epochs: list[Epoch]) -> None:
        self.run = run
        self.job = recorded_job(run)
        now = fingerprint_fields(self.job, str(run.fields.get("checkpoint")))
        differ = differences(run.fields, json.loads(json.dumps(now)))
        if differ:
            raise OutputError(
                f"run.json's job is not the job of its fingerprint: {'; '.join(differ)}",
                remedy="Restore run.json from a backup.",
            )
        self.files = {one.key: one for one in run.files}
        self.rows_per_unit = run.rows_per_unit
        self.samples = run.samples_per_row
        self.params = json.dumps(row_params(self.job), sort_keys=True)
        self.columns = data_schema(self.job).names
        self.versions = {epoch.code_version for epoch in epochs} | {run.code_version}
        self._listings = {
            (file.name, epoch.digests.get(file.name, ""))
            for epoch in epochs
            for file in epoch.files
            if is_listing(file)
        }

    @property
    def inline(self) -> bool:
        return self.job.output.images == "inline"

    @property
    def image_suffix(self) -> str:
        assert isinstance(self.job.params, ImageParams)
        return SUFFIX[self.job.params.image_format]

    def earlier_digests(self, listing: str) -> set[str]:
        """SHA-256 of a listing in any epoch."""
        return {digest for name, digest in self._listings if name == listing and digest}

    def revision_of(self, path: str) -> Revision:
        named = parse_part(path)
        return named.revision if named is not None else Revision()

    def lineage_faults(self, unit: UnitId, row: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with the lineage of a data row."""
        lineage = from_row(row["lineage"])
        expected = {
            "source_file": self.files[unit.file_key].name,
            "task": self.job.task,
            "params": self.params,
            "checkpoint": self.run.fields["checkpoint"],
            "output_version": OUTPUT_VERSION,
            "prompt_sent": row[PROMPT_COLUMN[self.job.task]],
            "sample_index": row.get("sample", 0),
        }
        yield from (f"{name} is not that of the job" for name, value in expected.items() if lineage[name] != value)
        if lineage["code_version"] not in self.versions:
            yield f"code version {lineage['code_version']} never wrote to this output"
        if not self._prompt_fits(lineage["prompt_sent"]):
            yield "the prompt is not the one that the job asks of every row"
        if not self._seed_fits(unit, row["id"], lineage):
            yield "the seed is not the one that the job derives"
        try:
            recomputed = recompute_id(lineage)
        except (ValueError, TypeError):
            recomputed = ""
        if recomputed != lineage["lineage_id"]:
            yield "lineage_id does not recompute"

    def _prompt_fits(self, prompt: object) -> bool:
        """A job that reads no prompt column asks the same of every row."""
        params = self.job.params
        if "prompt" in bindings(self.job):
            return bool(prompt)
        return prompt == (params.instruction if isinstance(params, EditParams) else getattr(params, "question", None))

    def _seed_fits(self, unit: UnitId, name: str | None, lineage: Mapping[str, Any]) -> bool:
        params = self.job.params
        if not isinstance(params, ImageParams):
            return lineage["seed"] is None
        if self.job.input.columns.seed is not None:  # a row's own seed is in the manifest alone
            return lineage["seed"] is not None
        if name is not None and is_address(name):  # its signature, which counts, was taken out
            return lineage["seed"] is not None
        who = identity(name, unit.file_key, lineage["source_row"])
        return bool(lineage["seed"] == derive_seed(params.seed, who, lineage["sample_index"]))


def recorded_job(run: Run) -> Job:
    """The job as `run.json` has it.

    Raises:
        OutputError: it is a job of another version.
    """
    try:
        job: Job = TypeAdapter(AnyJob).validate_python(run.job, strict=False)
    except ValidationError as error:
        raise OutputError(
            f"run.json holds no job of this version: {error.error_count()} faults in it",
            remedy="Use the version that wrote it, or restore run.json from a backup.",
        ) from error
    return job


def reached_with(job: Job, storage: Storage) -> Job:
    """`job`, its store reached as `storage` is: an audit may be given another endpoint than the run was."""
    options = storage.options.model_dump(exclude_defaults=True)
    return job.model_copy(update={"storage": job.storage.model_copy(update=options)})


def epochs_of(ledger: Ledger, run: Run) -> list[Epoch]:
    """Every epoch of an output, first to current. Raises OutputError where one is damaged or missing."""
    epochs = []
    for number in range(1, run.epoch.number + 1):
        epochs.append(ledger.epoch(number, run.identity))
    return epochs
