"""How many rows of a manifest share an id or have none: counted before a run, since `replay` will have to ask which."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.manifests import image_folder, webdataset
from unipic.pipeline.manifests import text as text_manifests
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.manifests.parquet_footers import plain_type
from unipic.pipeline.manifests.parquet_rows import completed
from unipic.pipeline.manifests.table_formats import partitions
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.storage.parquet import open_parquet
from unipic.pipeline.storage.storage import Storage

LOOKED_AT_ROWS = 2_000_000  # about a second on a local disk; a hash of 8 bytes is kept of each
BATCH_ROWS = 2**14
THREADS = 8


@dataclass(frozen=True)
class IdCount:
    """Of the first `rows` rows of the manifest: `repeated` have an id that an earlier one has, `null` have none.

    Attributes:
        complete: whether these are all rows; else both counts are at least what they say.
    """

    rows: int
    repeated: int
    null: int
    complete: bool


def count_ids(manifest: Manifest, column: str, storage: Storage, *, most_rows: int | None = LOOKED_AT_ROWS) -> IdCount:
    """Reads the id column alone, a batch at a time.

    Args:
        column: the one that is mapped as the rows' id.
        most_rows: where to stop; None looks at all rows.

    Raises:
        ManifestError: a file of the manifest cannot be read.
    """
    files: list[tuple[ManifestFile, int]] = []
    left = manifest.rows if most_rows is None else min(manifest.rows, most_rows)
    rows = left
    for file in manifest.files:
        if left:
            files.append((file, min(left, file.rows)))
            left -= files[-1][1]
    hashes: list[np.ndarray] = []
    null = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for found, nulls in pool.map(lambda one: _hashes(manifest, column, storage, *one), files):
            hashes.append(found)
            null += nulls
    every = np.concatenate(hashes) if hashes else np.empty(0, np.int64)
    every.sort()
    repeated = int(np.count_nonzero(every[1:] == every[:-1]))
    return IdCount(rows=rows, repeated=repeated, null=null, complete=rows == manifest.rows)


def _hashes(manifest: Manifest, column: str, storage: Storage, file: ManifestFile, rows: int) -> tuple[np.ndarray, int]:
    """A 64-bit hash of each id in the file's first `rows` rows, and how many are null."""
    hashes = np.empty(rows, np.int64)
    filled = null = 0
    for ids in _columns(manifest, column, storage, file, rows):
        there = [hash(one) for one in _as_bytes(ids) if one is not None]
        hashes[filled : filled + len(there)] = there
        filled += len(there)
        null += len(ids) - len(there)
    return hashes[:filled], null


def _as_bytes(ids: pa.Array | pa.ChunkedArray) -> list[bytes | None]:
    """The ids as they will be named, undecoded: text in a Parquet file need not be UTF-8."""
    plain = plain_type(ids.type)
    if pa.types.is_string(plain):
        return list(ids.cast(plain).cast(pa.binary()).to_pylist())
    return [None if one is None else str(one).encode() for one in ids.to_pylist()]


def _columns(
    manifest: Manifest, column: str, storage: Storage, file: ManifestFile, rows: int
) -> Iterator[pa.Array | pa.ChunkedArray]:
    in_path = partitions(file.name)
    if not file.uri:  # a listing that is not stored yet
        assert manifest.listing is not None
        yield image_folder.read_listing(manifest.listing).column(column).slice(0, rows)
        return
    if file.format == "webdataset" and column in webdataset.SCHEMA.names:
        yield webdataset.read(file, 0, rows, [column], storage)[0].column(column)
        return
    if file.format != "parquet":
        yield completed(text_manifests.load(file, storage).slice(0, rows), rows, [column], in_path).column(column)
        return
    with storage.open(file.uri) as source:
        try:
            parquet = open_parquet(source)
            if column not in parquet.schema_arrow.names:
                yield completed(pa.table({}), rows, [column], in_path).column(column)
                return
            for batch in parquet.iter_batches(BATCH_ROWS, columns=[column], use_threads=False):
                yield batch.column(0).slice(0, rows)
                rows -= batch.num_rows
                if rows <= 0:
                    return
        except (pa.ArrowException, OSError) as error:
            said = str(error).partition("\n")[0]
            raise ManifestError(f'{file.uri}: its column "{column}" cannot be read: {said}.') from error
