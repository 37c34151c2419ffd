"""Where a row came from, and the identity of what determines it.

`lineage_id` digests all that determines an output and nothing else: the same id means the same bytes on the same
hardware. Where and when it ran is in receipts, never here.

Parquet holds digests as fixed-size binary, a third of the bytes of hex text; Python code and JSON hold them as hex.
`to_row` and `from_row` convert between the two.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from unipic.pipeline.job import ImageParams, Job
from unipic.pipeline.records import OUTPUT_VERSION
from unipic.pipeline.sealed import digest

ID_BYTES = 16
SEED_BITS = 63
LINEAGE = pa.struct(
    [
        ("lineage_id", pa.binary(ID_BYTES)),
        ("source_file", pa.string()),  # its name in the manifest, relative to the manifest's folder
        ("source_row", pa.int64()),
        ("input_sha256", pa.binary(32)),
        ("parent_lineage_id", pa.binary(ID_BYTES)),
        ("task", pa.string()),
        ("prompt_sent", pa.string()),
        ("params", pa.string()),
        ("seed", pa.int64()),
        ("sample_index", pa.int32()),
        ("checkpoint", pa.binary(32)),
        ("code_version", pa.string()),
        ("output_version", pa.int32()),
        ("output_sha256", pa.binary(32)),
    ]
)
"""No field has the name of a column of the output rows, so that tools can unnest it beside them."""

DIGESTS = tuple(field.name for field in LINEAGE if pa.types.is_fixed_size_binary(field.type))
_HEX_ID = re.compile(r"[0-9a-f]{32}(?:[0-9a-f]{32})?")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def to_row(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """`lineage` as a value of `LINEAGE`: digests as bytes."""
    return {**lineage, **{name: bytes.fromhex(lineage[name]) for name in DIGESTS if lineage.get(name) is not None}}


def from_row(struct: Mapping[str, Any]) -> dict[str, Any]:
    """`to_row` backwards: digests as hex text. Values of a foreign struct stay as they are."""
    return {
        name: value.hex() if name in DIGESTS and isinstance(value, bytes) else value for name, value in struct.items()
    }


def parent_id(value: object) -> str | None:
    """The lineage id (hex) that a manifest or an image states of itself; None for anything else.

    Ids of output version 1 were whole SHA-256 digests; their first half names the same row.
    """
    text = value.hex() if isinstance(value, bytes) else value
    return text[: 2 * ID_BYTES] if isinstance(text, str) and _HEX_ID.fullmatch(text) else None


def identity(row_id: str | None, file_key: str, row: int) -> str:
    """What a row is called when its seed is derived: its own id where it has one, else its file and place."""
    return f"id:{row_id}" if row_id is not None else f"row:{file_key}:{row}"


def derive_seed(job_seed: int, row_identity: str, sample: int) -> int:
    """First 63 bits of SHA-256 over job seed, row identity and sample index: signed 64-bit integers hold them all."""
    first = hashlib.sha256(f"{job_seed}\n{row_identity}\n{sample}".encode()).digest()[:8]
    return int.from_bytes(first, "big") >> (64 - SEED_BITS)


def row_params(job: Job) -> dict[str, Any]:
    """The parameters that determine one row's output, as lineage states them."""
    params = job.params.model_dump(mode="json", exclude={"samples_per_row", "seed", "question", "instruction"})
    if isinstance(job.params, ImageParams) and job.params.image_format == "png":
        del params["quality"]
    return {**params, "dtype": job.model.dtype}


def lineage_id(
    *, task: str, prompt_sent: str, params: str, seed: int | None, input_sha256: str | None, checkpoint: str
) -> str:
    """Digest of all that determines an output (`params` as the JSON text lineage holds), 32 hex digits."""
    whole = digest(
        {
            "task": task,
            "prompt": prompt_sent,
            "params": json.loads(params),
            "seed": seed,
            "input_sha256": input_sha256,
            "checkpoint": checkpoint,
            "output_version": OUTPUT_VERSION,
        }
    )
    return whole[: 2 * ID_BYTES]


def recompute_id(lineage: Mapping[str, Any]) -> str:
    """`lineage_id` of a lineage as `from_row` gives it, from its other fields."""
    names = ("task", "prompt_sent", "params", "seed", "input_sha256", "checkpoint")
    return lineage_id(**{name: lineage[name] for name in names})
