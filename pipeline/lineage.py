"""Where a row came from, and the identity of what determines it.

`lineage_id` digests all that determines an output and nothing else: the same id means the same bytes on the same
hardware. Where and when it ran is in receipts, never here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa

from unipic.pipeline.job import ImageParams, Job
from unipic.pipeline.records import OUTPUT_VERSION
from unipic.pipeline.sealed import digest

LINEAGE = pa.struct(
    [
        ("lineage_id", pa.string()),
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        ("row_digest", pa.string()),
        ("input_sha256", pa.string()),
        ("parent_lineage_id", pa.string()),
        ("task", pa.string()),
        ("prompt", pa.string()),
        ("params", pa.string()),
        ("seed", pa.uint64()),
        ("sample", pa.int32()),
        ("checkpoint", pa.string()),
        ("code_version", pa.string()),
        ("output_version", pa.int32()),
        ("output_sha256", pa.string()),
    ]
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def identity(row_id: str | None, file_key: str, row: int) -> str:
    """What a row is called when its seed is derived: its own id where it has one, else its file and place."""
    return f"id:{row_id}" if row_id is not None else f"row:{file_key}:{row}"


def derive_seed(job_seed: int, row_identity: str, sample: int) -> int:
    """First 8 bytes of SHA-256 over job seed, row identity and sample index, as an unsigned integer."""
    return int.from_bytes(hashlib.sha256(f"{job_seed}\n{row_identity}\n{sample}".encode()).digest()[:8], "big")


def row_params(job: Job) -> dict[str, Any]:
    """The parameters that determine one row's output, as lineage states them."""
    params = job.params.model_dump(mode="json", exclude={"samples_per_row", "seed", "question", "instruction"})
    if isinstance(job.params, ImageParams) and job.params.image_format == "png":
        del params["quality"]
    return {**params, "dtype": job.model.dtype}


def lineage_id(
    *, task: str, prompt: str, params: str, seed: int | None, input_sha256: str | None, checkpoint: str
) -> str:
    """Digest of all that determines an output (`params` as the JSON text lineage holds)."""
    return digest(
        {
            "task": task,
            "prompt": prompt,
            "params": json.loads(params),
            "seed": seed,
            "input_sha256": input_sha256,
            "checkpoint": checkpoint,
            "output_version": OUTPUT_VERSION,
        }
    )


def recompute_id(row: dict[str, Any]) -> str:
    """`lineage_id` of a stored lineage struct, from its other fields."""
    names = ("task", "prompt", "params", "seed", "input_sha256", "checkpoint")
    return lineage_id(**{name: row[name] for name in names})
