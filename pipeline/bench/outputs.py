"""Outputs for benchmarks: the real claim and the real commit, over manifests and models that were never there."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa

from unipic.pipeline.context import RunContext
from unipic.pipeline.job import CaptionJob, CaptionParams, Columns, GenerateJob, ImageParams, Input, Job, Model, Output
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.claims import claim
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.records import ManifestFile, Unit
from unipic.pipeline.sealed import digest
from unipic.pipeline.stages.prepare import PREPARED
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

ROWS_PER_FILE = 250_000
CHECKPOINT = digest("none")
IMAGE_SIZE = 16


def caption_job(output: str, storage: StorageOptions | None = None) -> CaptionJob:
    return CaptionJob(
        name="bench",
        task="caption",
        input=Input(manifest=f"{output}-manifest", columns=Columns(image="image")),
        model=Model(checkpoint="none"),
        params=CaptionParams(),
        output=Output(uri=output),
        storage=storage or StorageOptions(),
    )


def generate_job(output: str, images: Literal["inline", "files"], storage: StorageOptions | None = None) -> GenerateJob:
    return GenerateJob(
        name="bench",
        task="generate",
        input=Input(manifest=f"{output}-manifest"),
        model=Model(checkpoint="none"),
        params=ImageParams(image_size=IMAGE_SIZE),
        output=Output(uri=output, images=images),
        storage=storage or StorageOptions(),
    )


def manifest_of(job: Job, rows: int) -> Manifest:
    sizes = [min(ROWS_PER_FILE, rows - first) for first in range(0, rows, ROWS_PER_FILE)]
    files = [ManifestFile(f"m/{at:05d}.parquet", f"{at:05d}.parquet", size, 0, "1") for at, size in enumerate(sizes)]
    column = "image" if job.task == "caption" else "prompt"
    return Manifest(tuple(files), pa.schema([(column, pa.string())]))


def claimed(job: Job, manifest: Manifest, storage: Storage) -> tuple[Run, RunContext]:
    """The output's run, and the context for committing its units."""
    run, _ = claim(Ledger(job.output.uri, storage), job, manifest, CHECKPOINT)
    return run, RunContext(job, CHECKPOINT, manifest.columns, run.epoch.number)


def answered(unit: Unit, job: Job) -> pa.Table:
    """What a replica would have said of `unit`."""
    captions = job.task == "caption"
    rows: list[dict[str, Any]] = [
        {
            "row": row,
            "sample": 0,
            "id": f"{unit.file.name}-{row}",
            "prompt": "Describe the image in detail." if captions else f"a photo of thing number {row}",
            "source": f"pictures/{row:09d}.png" if captions else None,
            "input_sha256": digest(row) if captions else None,
            "seed": None if captions else row,
            "row_digest": digest([unit.file.name, row]),
        }
        for row in range(unit.first_row, unit.first_row + unit.rows)
    ]
    said = [f"A picture of thing number {row['row']}, in the middle of a quiet room.".encode() for row in rows]
    answers = said if captions else [bytes(IMAGE_SIZE**2 * 3)] * len(rows)
    table = pa.Table.from_pylist(rows, schema=PREPARED).drop_columns(["pixels"])
    return table.append_column("answer", pa.array(answers, pa.large_binary()))
