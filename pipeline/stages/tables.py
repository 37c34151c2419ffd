"""The Arrow tables that go from stage to stage: PREPARED from prepare to infer, ANSWERED from infer to commit.

Both hold one row per manifest row and sample, in order. The job's `keep` columns follow, as `keep.NAME`.
"""

from __future__ import annotations

import pyarrow as pa

from unipic.pipeline.records import FAULT

KEEP = "keep."
"""Prefix of the columns that travel from the manifest to the output untouched."""

_ROW = [
    ("row", pa.int64()),  # in the manifest file
    ("sample", pa.int32()),
    ("id", pa.string()),
    ("prompt", pa.string()),  # or instruction, or question
    ("seed", pa.int64()),
]
_SOURCE = [
    ("inner_px", pa.list_(pa.int32())),  # [width, height] of an image inside the square it was padded to; else null
    ("source", pa.string()),
    ("input_sha256", pa.string()),
    ("parent", pa.string()),  # lineage id of the row whose output the image is
]

PREPARED = pa.schema(
    [
        *_ROW,
        ("pixels", pa.large_binary()),  # (S, S, 3) uint8, fitted to image_size; null for generate
        *_SOURCE,
        ("fault", FAULT),
    ]
)

ANSWERED = pa.schema(
    [
        *_ROW,
        *_SOURCE,
        ("answer", pa.large_binary()),  # (S, S, 3) uint8 pixels, or UTF-8 text; null where `fault` is not
        ("fault", FAULT),
    ]
)
"""The facts of the attempt are JSON in the schema's metadata under "facts"."""
