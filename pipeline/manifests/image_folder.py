"""A folder of images as a manifest: a Parquet listing whose row numbers stay what they are."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.storage.file_times import touch_command
from unipic.pipeline.storage.parquet import read_parquet
from unipic.pipeline.storage.paths import is_remote, relative
from unipic.pipeline.storage.storage import FileInfo

_NAMES = "png apng jpg jpeg jpe jfif mpo webp bmp dib gif tif tiff avif avifs jp2 j2k j2c jpc jpf jpx ppm pgm pbm pnm"
SUFFIXES = tuple(f".{name}" for name in f"{_NAMES} tga pcx sgi psd".split())
SCHEMA = pa.schema(
    [("id", pa.string()), ("image", pa.string()), ("source_bytes", pa.int64()), ("version", pa.string())]
)


@dataclass(frozen=True)
class Replaced:
    """Images that are others now than when they were listed.

    Attributes:
        name: of the stored listing.
        rows: theirs, in it.
        images: their names.
        touch_commands: for each the command that gives it its time back, if nothing else tells it from what was listed,
            or "".
        listing: the listing's bytes with the images as they are now, each in its old row.
    """

    name: str
    rows: tuple[int, ...]
    images: tuple[str, ...]
    touch_commands: tuple[str, ...]
    listing: bytes


def is_image(uri: str) -> bool:
    """Whether the name says so; what the bytes really are is found out by decoding."""
    return uri.lower().endswith(SUFFIXES)


def make_listing(images: Sequence[FileInfo], base: str) -> bytes | None:
    """The listing of these images, sorted by relative path: the same images, the same bytes. None for none."""
    if not images:
        return None
    rows = sorted((relative(info.uri, base), info) for info in images)
    columns = [
        [name for name, _ in rows],
        [name for name, _ in rows],
        [info.size_bytes for _, info in rows],
        [info.version for _, info in rows],
    ]
    return _written(pa.table(columns, schema=SCHEMA))


def find_replaced(name: str, listing: pa.Table, present: Mapping[str, FileInfo]) -> Replaced | None:
    """What of `listing` was replaced under its name.

    Args:
        present: relative path → the image there is now; one that is gone is not replaced.

    Returns:
        None where every image that is still there is the one that was listed.
    """
    images, sizes, versions = (listing.column(column).to_pylist() for column in ("image", "source_bytes", "version"))
    rows, touch_commands = [], []
    for row, image in enumerate(images):
        info = present.get(image)
        if info is not None and (info.size_bytes, info.version) != (sizes[row], versions[row]):
            rows.append(row)
            only_time = info.size_bytes == sizes[row] and not is_remote(info.uri)
            touch_commands.append(touch_command(info.uri, versions[row]) if only_time else "")
            sizes[row], versions[row] = info.size_bytes, info.version
    if not rows:
        return None
    now = _written(pa.table([listing.column("id"), listing.column("image"), sizes, versions], schema=SCHEMA))
    return Replaced(name, tuple(rows), tuple(images[row] for row in rows), tuple(touch_commands), now)


def listing_name(listing: bytes) -> str:
    return f"listing-{hashlib.sha256(listing).hexdigest()[:16]}"


def read_listing(listing: bytes) -> pa.Table:
    """Raises ManifestError for bytes that are no listing."""
    try:
        table = read_parquet(io.BytesIO(listing))
    except pa.ArrowException as error:
        raise ManifestError(
            "A stored listing of images is damaged.", remedy="Restore _unipic/listings of the output."
        ) from error
    if table.schema.names != SCHEMA.names:
        raise ManifestError(f"A stored listing of images has the columns {', '.join(table.schema.names)}.")
    return table


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=2**16)
    return bytes(sink.getvalue())
