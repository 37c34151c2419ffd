"""A folder of pictures as a manifest: a Parquet listing whose row numbers stay what they are."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ManifestError
from pipeline.parquet_file import read_parquet
from pipeline.storage import FileInfo, relative

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SCHEMA = pa.schema(
    [("id", pa.string()), ("image", pa.string()), ("source_bytes", pa.int64()), ("version", pa.string())]
)


def is_picture(uri: str) -> bool:
    """Whether the name says so; what the bytes really are is found out by decoding."""
    return uri.lower().endswith(SUFFIXES)


def make_listing(pictures: Sequence[FileInfo], base: str) -> bytes | None:
    """The listing of these pictures, sorted by relative path: the same pictures, the same bytes. None for none."""
    if not pictures:
        return None
    rows = sorted((relative(info.uri, base), info) for info in pictures)
    columns = [
        [name for name, _ in rows],
        [name for name, _ in rows],
        [info.size_bytes for _, info in rows],
        [info.version for _, info in rows],
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=SCHEMA), sink, compression="zstd", row_group_size=2**16)
    return bytes(sink.getvalue())


def listing_name(listing: bytes) -> str:
    return f"listing-{hashlib.sha256(listing).hexdigest()[:16]}"


def read_listing(listing: bytes) -> pa.Table:
    """Raises ManifestError for bytes that are no listing."""
    try:
        table = read_parquet(io.BytesIO(listing))
    except pa.ArrowException as error:
        raise ManifestError(f"A stored listing of pictures cannot be read: {error}.") from error
    if table.schema.names != SCHEMA.names:
        raise ManifestError(f"A stored listing of pictures has the columns {', '.join(table.schema.names)}.")
    return table
