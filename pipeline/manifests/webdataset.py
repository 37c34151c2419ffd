"""WebDataset shards as manifests: each tar is walked once for an index, and units read the bytes of their samples.

A sample is what lies side by side under one key, the name up to the first dot behind its folder. Its columns are `id`
(the key), `image` (its first image), `txt` and `json` (as text). Nothing is extracted: links, devices and members of
other kinds, pickles among them, are never read.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, cast

import pyarrow as pa

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.manifests.cache import ManifestCache, cache_of
from unipic.pipeline.manifests.changes import check_version, current_version
from unipic.pipeline.manifests.image_folder import is_image
from unipic.pipeline.manifests.parquet_rows import Unreadable
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.storage.storage import Storage

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("txt", pa.string()),
        ("json", pa.string()),
    ]
)
IMAGE_MAX_BYTES = 2**26
TEXT_MAX_BYTES = 2**20
HEADER_MAX_BYTES = 2**16  # of what tar headers hold beside members, such as long names
BLOCK_BYTES = 512
PADDING_MAX_BYTES = 2**20  # behind the last member; tar's own records are 10 KiB
CHUNK_ROWS = 2**14  # samples held as Python objects
CHUNK_BYTES = 2**30  # of one Arrow array, which holds at most 2 GiB
_TEXTS = ("txt", "json")
_PLACE = pa.struct([("name", pa.string()), ("first_byte", pa.int64()), ("bytes", pa.int64())])
_INDEX = pa.schema([("id", pa.string()), ("image", _PLACE), ("txt", _PLACE), ("json", _PLACE)])
_FAULTS = (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError)


def index(file: ManifestFile, storage: Storage) -> pa.Table:
    """Where the members of each sample are: a row a sample. Raises ManifestError for a damaged or compressed tar."""
    cache: ManifestCache[Any] = cache_of(storage)
    key = (file.uri, current_version(file, storage))
    return cache.indexes.get(key, lambda: _index(file, storage))


def read(
    file: ManifestFile, first_row: int, rows: int, columns: Sequence[str], storage: Storage
) -> tuple[pa.Table, list[Unreadable]]:
    """These rows and columns, and which of the rows cannot be read."""
    schema = pa.schema([SCHEMA.field(column) for column in columns])
    tables: list[pa.Table] = []
    cells: list[dict[str, Any]] = []
    held_bytes = 0
    unreadable: list[Unreadable] = []
    with storage.open(file.uri, info=check_version(file, storage)) as source:
        for row, sample in enumerate(index(file, storage).slice(first_row, rows).to_pylist(), start=first_row):
            if held_bytes > CHUNK_BYTES:
                tables.append(pa.Table.from_pylist(cells, schema=schema))
                cells, held_bytes = [], 0
            cells.append({})
            for column in columns:
                cells[-1][column], read_bytes, why = _cell(sample, column, source, file.uri)
                held_bytes += read_bytes
                if why:
                    unreadable.append(Unreadable(row, 1, why))
    return pa.concat_tables([*tables, pa.Table.from_pylist(cells, schema=schema)]), unreadable


def _cell(sample: dict[str, Any], column: str, source: BinaryIO, uri: str) -> tuple[Any, int, str]:
    """The sample's value, the bytes read for it, and why it has no value, or ""."""
    place = sample[column]
    if column == "id" or place is None:
        return place, 0, ""
    most = IMAGE_MAX_BYTES if column == "image" else TEXT_MAX_BYTES
    if place["bytes"] > most:
        return None, 0, f"its {column} has {place['bytes']:,} bytes, the limit in a tar is {most:,}"
    source.seek(place["first_byte"])
    data = source.read(place["bytes"])
    if len(data) != place["bytes"]:
        raise ManifestError(f"{uri} became shorter while it was read.", remedy="Write new rows to new files.")
    if column == "image":
        return {"bytes": data, "path": place["name"]}, len(data), ""
    try:
        return data.decode("utf-8-sig"), len(data), ""
    except UnicodeDecodeError:
        return None, len(data), f"its {column} is not UTF-8 text"


def _index(file: ManifestFile, storage: Storage) -> pa.Table:
    info = check_version(file, storage)
    with storage.open(file.uri, info=info) as source:
        try:
            samples = _samples(source, info.size_bytes)
            chunks = [pa.Table.from_pylist(chunk, schema=_INDEX) for chunk in _chunks(samples)]
        except _FAULTS as error:
            why = "its headers are nested too deeply" if isinstance(error, RecursionError) else str(error).rstrip(".")
            raise ManifestError(
                f"{file.uri} is not a readable tar: {why or 'it ends too early'}.",
                remedy="Write it again, without compression, or remove it.",
            ) from error
    return pa.concat_tables([_INDEX.empty_table(), *chunks])


def _chunks(samples: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while chunk := list(islice(samples, CHUNK_ROWS)):
        yield chunk


def _samples(source: BinaryIO, size_bytes: int) -> Iterator[dict[str, Any]]:
    sample: dict[str, Any] = {}
    with tarfile.open(fileobj=cast(BinaryIO, _Bounded(source)), mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep every member it has seen
            if member.size < 0:  # tarfile would go back and read the same members for ever
                raise ValueError(f"its member {_text(member.name)!r} claims a negative size")
            if member.offset_data + member.size > size_bytes:
                raise EOFError(f"it ends inside {_text(member.name)!r}")
            key, kind = _named(_text(member.name))
            if not key or member.isdir():
                continue
            if sample and sample["id"] != key:
                yield sample
                sample = {}
            sample.setdefault("id", key)
            column = kind if kind in _TEXTS else "image" if is_image(f".{kind}") else ""
            if column and column not in sample and member.isreg() and not member.issparse():
                name = _text(member.name)
                sample[column] = {"name": name, "first_byte": member.offset_data, "bytes": member.size}
        _check_end(source, tar.offset)
    if sample:
        yield sample


def _check_end(source: BinaryIO, offset: int) -> None:
    """Hold that the tar ends at `offset`: tarfile takes damaged headers for the end, and cut files for whole ones."""
    source.seek(offset)
    end = source.read(BLOCK_BYTES)
    if any(end):
        raise ValueError(f"its header at byte {offset:,} is damaged")
    if len(end) < BLOCK_BYTES:
        raise EOFError("it has no end mark, so it may have been cut off between two members")
    if any(source.read(PADDING_MAX_BYTES)):
        raise ValueError(f"more follows its end at byte {offset:,}, as in tars that were joined by `cat`")


def _text(name: str) -> str:
    """A member's name as valid text: bytes that are no UTF-8 are written as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _named(name: str) -> tuple[str, str]:
    """(key, kind) of a member: `a/b.seg.png` is the `seg.png` of `a/b`, whose last part alone says what it holds."""
    folder, slash, last = name.rpartition("/")
    stem, dot, kind = last.partition(".")
    if not stem or not dot:
        return "", ""
    return f"{folder}{slash}{stem}", kind.rpartition(".")[2].lower()


class _Bounded:
    """A file as tarfile uses it, that reads no more at once than a header may hold."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER_MAX_BYTES:
            raise ValueError(f"one of its headers claims {size:,} bytes")
        return self._source.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()
