"""The job as a value: closed, frozen, complete. A YAML file is one way to write it (`jobs/spec/load.py`).

Validation here touches neither network nor GPU. What changes the bytes of the outputs is in the fingerprint
(`pipeline/output/run_record.py`); all under `compute`, `limits`, `storage` and `openlineage` may change between runs of
one output.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from unipic.pipeline.closed import INTEGER_AS_FLOAT, Closed, Real
from unipic.pipeline.openlineage_options import OpenLineageOptions
from unipic.pipeline.params import CaptionParams, EditParams, ImageParams
from unipic.pipeline.places import Checkpoint, Place, Source
from unipic.pipeline.storage.options import StorageOptions

Task = Literal["generate", "edit", "caption"]
Format = Literal["auto", "parquet", "json", "jsonl", "csv", "tsv", "txt", "webdataset", "openai-batch", "images"]
TASKS: tuple[Task, ...] = ("generate", "edit", "caption")


class Columns(Closed):
    """Maps what the task needs to columns of the manifest."""

    id: str | None = Field(
        default=None, description="Column of a row's own id; without it, file and row number identify it."
    )
    prompt: str | None = Field(
        default=None, description="generate: the prompt. edit: the instruction. caption: a question per row."
    )
    image: str | None = Field(
        default=None, description="edit, caption: a path or URI, bytes, or a struct {bytes, path}."
    )
    seed: str | None = Field(
        default=None, description="Integer column that overrides each row's derived seed: 0 to 2^63 - 1."
    )


COLUMNS_OF_REQUESTS = {"id": "custom_id", "prompt": "prompt", "image": "image", "seed": "seed"}


class Input(Closed):
    """Where the rows come from."""

    manifest: Source = Field(
        min_length=1,
        description="Parquet, JSON, JSONL, CSV, TSV or text with a prompt a line, all but Parquet also as .gz or .zst: "
        "a file, a glob, a folder; or a folder of images; or WebDataset tars. Local, s3://, gs://, az:// or hf://.",
    )
    format: Format = Field(
        default="auto",
        description="auto: from the file names. webdataset (tars) and openai-batch (JSONL of requests) must be named.",
    )
    columns: Columns = Field(
        default_factory=lambda: Columns(), description="Maps what the task needs to the manifest's columns."
    )
    keep: tuple[str, ...] = Field(default=(), description="Further manifest columns to copy into the output rows.")
    image_root: Source | None = Field(
        default=None,
        description="Folder that relative image paths start from; default: the manifest file's own folder.",
    )
    allow_outside_root: bool = Field(
        default=False, description="Allow local image paths outside their root; for trusted manifests."
    )
    allow_http: bool = Field(default=False, description="Fetch images at http(s) addresses, from public hosts only.")
    http_deadline_s: Real = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Seconds for one image from the web, with retries and redirects.",
    )
    max_image_mpx: Real = Field(
        default=64.0, gt=0, le=1000, description="Larger images, in megapixels, are rejected before decoding."
    )
    max_image_mb: Real = Field(default=64.0, gt=0, le=4096, description="Larger images, in megabytes, are rejected.")

    @model_validator(mode="before")
    @classmethod
    def _with_columns_of_requests(cls, value: Any) -> Any:
        """Requests of an OpenAI batch always have the same columns, so that a job need not map them."""
        if not isinstance(value, dict) or value.get("format") != "openai-batch":
            return value
        given = value.get("columns")
        given = given.model_dump(exclude_none=True) if isinstance(given, Columns) else given or {}
        return {**value, "columns": {**COLUMNS_OF_REQUESTS, **given}} if isinstance(given, dict) else value

    @field_validator("keep", mode="before")
    @classmethod
    def _list_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("keep")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"must name each column once; twice there: {', '.join(twice)}")
        return value


class Model(Closed):
    """The checkpoint and its arithmetic."""

    checkpoint: Checkpoint = Field(
        min_length=1,
        description="Folder made by `unipic convert` or `unipic init-tiny`, local or s3://; or builtin:tiny, the small "
        "checkpoint in this package.",
    )
    dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="Arithmetic of the replica; it changes the outputs."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: cuda if a replica has a GPU, else cpu."
    )


class Output(Closed):
    """Where the outputs go. The folder belongs to this job alone."""

    uri: Place = Field(min_length=1, description="Folder, local or s3://; it belongs to this job alone.")
    images: Literal["inline", "files"] = Field(
        default="inline", description="inline: bytes inside the Parquet; files: images beside it."
    )
    part_mb: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Merge the parts into files of about this many MiB when a run ends with all units done.",
    )
    seal: bool = Field(default=False, description="Seal the output when the job is done, as `unipic seal` does.")


class Replicas(Closed):
    """How many replicas the pool has, at least and at most."""

    min: int = Field(default=1, ge=1, le=10_000, description="Replicas held from the start.")
    max: int = Field(default=1, ge=1, le=10_000, description="Replicas the pool may grow to.")

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) must not be below min ({self.min})")
        return self


class Compute(Closed):
    """How the work is distributed. Nothing here changes outputs, except rounding when batch_size differs."""

    replicas: Replicas = Field(default_factory=lambda: Replicas(), description="A number, or {min, max}.")
    gpus_per_replica: Literal["auto"] | Annotated[Real, Field(ge=0, le=16)] = Field(
        default="auto", description="auto: 1 if a machine has a GPU, else 0; 0 runs on the CPU."
    )
    cpus_per_replica: int = Field(
        default=1, ge=1, le=256, description="Also the replica's arithmetic threads on a CPU."
    )
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        default="auto", description="Rows per micro-batch; auto: from the device's free memory and the task."
    )
    rows_per_unit: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Rows per unit of work and commit; default 64, captions 128, divided by samples_per_row. "
        "Fixed by the first run.",
    )
    layout: Literal["staged", "fused"] = Field(
        default="staged",
        description="staged: CPU work in tasks of its own; fused: all in the replica, cheaper per unit.",
    )

    @property
    def gpus(self) -> float:
        """GPUs of one replica; 0 before a run has resolved `auto`."""
        return 0.0 if self.gpus_per_replica == "auto" else self.gpus_per_replica

    @field_validator("replicas", mode="before")
    @classmethod
    def _number_is_both(cls, value: Any) -> Any:
        return {"min": value, "max": value} if type(value) is int else value


class Limits(Closed):
    """When to stop early."""

    max_rejected: str | int = Field(default="10%", description="Rows that may fail: a count, or a share such as 1%.")
    until: str | None = Field(
        default=None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d( [A-Za-z][A-Za-z0-9_+/-]*)?$",
        description='Time of day to stop at, quoted: "07:00" in the driver\'s time zone, or "07:00 Europe/Berlin".',
    )
    max_hours: Annotated[float, Field(gt=0, le=10_000), INTEGER_AS_FLOAT] | None = Field(
        default=None, description="Hours after which no new unit starts."
    )
    grace_s: Real = Field(
        default=120.0, ge=0, le=86_400, description="Seconds that units in flight get to finish after a stop."
    )
    stall_s: Real = Field(
        default=1800.0,
        gt=0,
        le=86_400,
        description="Seconds without progress after which the run stops; a running micro-batch counts as progress.",
    )
    batch_timeout_s: Real = Field(
        default=1800.0, gt=0, le=86_400, description="Seconds for one micro-batch before its replica is replaced."
    )

    @field_validator("until")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        zone = (value or "").partition(" ")[2]
        if zone:
            try:
                ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(f"must name a time zone of the IANA database or none, got {zone}") from None
        return value

    @field_validator("max_rejected")
    @classmethod
    def _count_or_share(cls, value: str | int) -> str | int:
        if isinstance(value, int):
            if isinstance(value, bool) or value < 0:
                raise ValueError(f"must be a count of 0 or more, or a share such as 1%, got {value}")
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)
        if match is None or Fraction(match[1]) > 100:
            raise ValueError(f"must be a count, or a share from 0% to 100%, got {value!r}")
        return value

    def rejected_allowed(self, rows: int) -> int:
        """How many of `rows` may be rejected."""
        if isinstance(self.max_rejected, int):
            return self.max_rejected
        return int(Fraction(self.max_rejected.rstrip("% ")) * rows / 100)  # as a float, 29% of 100 is 28.999…


class Job(Closed):
    """One task over one manifest into one output folder; a `GenerateJob`, an `EditJob` or a `CaptionJob`."""

    name: str = Field(
        min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$", description="For people and logs."
    )
    task: Task
    input: Input
    model: Model
    params: ImageParams | CaptionParams
    output: Output
    compute: Compute = Field(default_factory=lambda: Compute(), description="How the work is distributed.")
    limits: Limits = Field(default_factory=lambda: Limits(), description="When to stop early.")
    storage: StorageOptions = Field(default_factory=lambda: StorageOptions(), description="How to reach S3.")
    openlineage: OpenLineageOptions = Field(
        default_factory=lambda: OpenLineageOptions(), description="Where OpenLineage events go."
    )

    @property
    def rows_per_unit(self) -> int:
        return self.compute.rows_per_unit or max(1, (128 if self.task == "caption" else 64) // self.samples_per_row)

    @property
    def samples_per_row(self) -> int:
        return self.params.samples_per_row if isinstance(self.params, ImageParams) else 1

    @property
    def image_size(self) -> int:
        """In pixels. Raises ValueError before the checkpoint's trained size has been filled in."""
        if self.params.image_size is None:
            raise ValueError("params.image_size is not resolved yet")
        return self.params.image_size


class GenerateJob(Job):
    """Images from prompts."""

    task: Literal["generate"] = "generate"
    params: ImageParams = Field(default_factory=lambda: ImageParams(), description="Sampling.")


class EditJob(Job):
    """Images from images and instructions."""

    task: Literal["edit"] = "edit"
    params: EditParams = Field(
        default_factory=lambda: EditParams(), description="Sampling, and an instruction for all rows."
    )


class CaptionJob(Job):
    """Text from images."""

    task: Literal["caption"] = "caption"
    params: CaptionParams = Field(default_factory=lambda: CaptionParams(), description="Question and length.")


AnyJob = Annotated[GenerateJob | EditJob | CaptionJob, Field(discriminator="task")]
