"""Finding a manifest's files and counting their rows.

Planning reads Parquet footers, never rows. JSON, JSONL and CSV are read whole (`text.py`); a folder of images becomes
a Parquet listing (`image_folder.py`) that the caller stores with the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pyarrow as pa

from unipic.pipeline.errors import EmptyManifest, ManifestError, ObjectMissing, StorageError
from unipic.pipeline.job import Input
from unipic.pipeline.manifests import image_folder, left_out, openai_batch, parquet_footers, webdataset
from unipic.pipeline.manifests import text as text_manifests
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.manifests.search import Found, find, format_of, no_manifest, suitable
from unipic.pipeline.manifests.table_formats import with_partitions
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.storage.paths import relative
from unipic.pipeline.storage.storage import FileInfo, Storage

FOOTER_THREADS = 16
TEXT_THREADS = 2  # text is read whole and parsed by Python: more threads would cost memory and save no time
OnProgress = Callable[[int, int], None]
"""Called with (files looked at, files in all)."""


def discover(
    source: Input,
    storage: Storage,
    *,
    listings: Sequence[str] = (),
    outside: str = "",
    on_progress: OnProgress | None = None,
) -> Manifest:
    """Find the manifest's files and count their rows.

    Args:
        listings: URIs of the listings stored by earlier runs over the same folder of images.
        outside: the job's own output folder: what it wrote there is none of its manifest.
    Raises:
        ManifestError: nothing there, no rows, or a file that cannot be read, by name.
    """
    try:
        found = find(source.manifest, storage, outside=outside, tables=source.format != "images")
        if source.format == "images" or (source.format == "auto" and not suitable(found, "auto")):
            return _images(source, storage, found, listings)
        return _files(source, storage, found, on_progress)
    except StorageError as error:
        if error.retryable:
            raise
        message = f"The manifest {source.manifest} cannot be read: {error.message}"
        raise ManifestError(message, remedy=error.remedy) from error


def _files(source: Input, storage: Storage, there: Found, on_progress: OnProgress | None) -> Manifest:
    base, found = there.folder, suitable(there, source.format)
    look = partial(_look, storage=storage, base=base, root=source.image_root, wanted=source.format)
    files: list[ManifestFile] = []
    schemas: dict[pa.Schema, str] = {}
    batch = openai_batch.Batch()
    threads = TEXT_THREADS if _are_text(source, found) else FOOTER_THREADS
    with ThreadPoolExecutor(min(threads, len(found))) as pool:
        try:
            for file, schema, requests in pool.map(look, found):
                files.append(file)
                batch.add(file.name, requests)
                if file.rows or len(found) == 1:
                    schemas.setdefault(schema, file.name)
                if on_progress is not None:
                    on_progress(len(files), len(found))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if not any(file.rows for file in files):
        what = "a file without rows" if len(files) == 1 else f"{len(files)} files without rows"
        raise EmptyManifest(f"The manifest {source.manifest} is empty: {what}.")
    schema, *others = schemas
    further = tuple((schemas[other], other) for other in others)
    notes = (*_beside(there, found), *batch.notes())
    return Manifest(tuple(files), schema, others=further, left_out=notes, folder=base, endpoint=batch.endpoint)


def _beside(there: Found, taken: Sequence[FileInfo]) -> list[str]:
    """Notes on what lies where manifest files were found and gives no rows itself."""
    uris = {info.uri for info in taken}
    rest = [info for info in there.files if info.uri not in uris]
    images = [info for info in rest if image_folder.is_image(info.uri)]
    others = [info for info in rest if not image_folder.is_image(info.uri)]
    return left_out.beside_manifests(images, others, there.folder) + left_out.hidden(there.hidden, there.folder)


def _are_text(source: Input, found: Sequence[FileInfo]) -> bool:
    formats = {format_of(info.uri) if source.format == "auto" else source.format for info in found}
    return not formats <= {"parquet", "webdataset"}


def _look(
    info: FileInfo, *, storage: Storage, base: str, root: str | None, wanted: str
) -> tuple[ManifestFile, pa.Schema, pa.Table | None]:
    """The file, its columns, and of an OpenAI batch file what its requests ask for."""
    file_format = wanted if wanted != "auto" else format_of(info.uri) or ""
    file = ManifestFile(
        uri=info.uri,
        name=relative(info.uri, base),
        rows=0,
        source_bytes=info.size_bytes,
        version=info.version,
        format=file_format,
        root=root or info.uri.rpartition("/")[0] or "/",
    )
    requests = None
    try:
        if file_format == "parquet":
            rows, schema = parquet_footers.footer(info, storage)
        elif file_format == "webdataset":
            rows, schema = webdataset.index(file, storage).num_rows, webdataset.SCHEMA
        else:
            table = text_manifests.load(file, storage)
            rows, schema = table.num_rows, table.schema
            requests = table.select(openai_batch.ASKED) if file_format == openai_batch.FORMAT else None
    except ObjectMissing as error:
        raise ManifestError(f"{info.uri} was listed and is gone.") from error
    return replace(file, rows=rows), with_partitions(schema, file.name), requests


def _images(source: Input, storage: Storage, there: Found, listings: Sequence[str]) -> Manifest:
    base, found = there.folder, there.files
    images = {relative(info.uri, base): info for info in found if image_folder.is_image(info.uri)}
    earlier: list[ManifestFile] = []
    replaced: list[image_folder.Replaced] = []
    known: set[str] = set()
    for uri in listings:
        data = storage.read(uri)
        table = image_folder.read_listing(data)
        known.update(table.column("image").to_pylist())
        name = uri.rpartition("/")[2].removesuffix(".parquet")
        earlier.append(_listing_file(uri, name, table.num_rows, len(data), base))
        if (now := image_folder.find_replaced(name, table, images)) is not None:
            replaced.append(now)
    if not images and not earlier:
        raise no_manifest(source.manifest, found)
    listing = image_folder.make_listing([info for name, info in images.items() if name not in known], base)
    files = list(earlier)
    if listing is not None:
        rows = image_folder.read_listing(listing).num_rows
        files.append(_listing_file("", image_folder.listing_name(listing), rows, len(listing), base))
    others = [info for info in found if not image_folder.is_image(info.uri)]
    notes = left_out.beside_images(others, base) + left_out.hidden(there.hidden, base)
    return Manifest(
        tuple(files), image_folder.SCHEMA, listing, replaced=tuple(replaced), left_out=tuple(notes), folder=base
    )


def _listing_file(uri: str, name: str, rows: int, size_bytes: int, root: str) -> ManifestFile:
    return ManifestFile(uri=uri, name=name, rows=rows, source_bytes=size_bytes, version="", root=root)
