"""Parquet manifests: footers for planning, and just the rows and columns of one unit.

Units of one file come to a process in rising order, with gaps. Small row groups are therefore decoded once and held
in a bounded cache; large ones are streamed by a cursor that goes on where the last unit of this process ended, so
that neither a million-row group is decoded for each unit nor a group of huge pictures ever held whole.
"""

from __future__ import annotations

import base64
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.records import Unit
from unipic.pipeline.storage.local import local_time, touch_command
from unipic.pipeline.storage.parquet import open_parquet
from unipic.pipeline.storage.paths import is_s3
from unipic.pipeline.storage.storage import FileInfo, Storage

WHOLE_GROUP_BYTES = 32 * 2**20
WHOLE_GROUP_ROWS = 2**17  # a dictionary can hide how large rows become
CACHE_BYTES = 128 * 2**20
CACHED_GROUPS = 64
BATCH_BYTES = 16 * 2**20
STREAM_BUFFER_BYTES = 4 * 2**20
OPEN_CURSORS = 4
OPEN_FILES = 8
_MAGIC = b"PAR1"
_PICKLED = "ray.data."  # Ray's extension types may unpickle what is in the file
_PLAIN = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}
T = TypeVar("T")


def footer(info: FileInfo, storage: Storage) -> tuple[int, pa.Schema]:
    """Row count and plain schema of a file, from its footer. Raises ManifestError naming the file."""
    uri = info.uri
    with storage.open(uri, info=info) as file:
        try:
            metadata = pq.read_metadata(file)
            schema = metadata.schema.to_arrow_schema()
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(uri, _footer_fault(file, info.size_bytes, error)) from error
    _refuse_pickled(uri, metadata, schema)
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise ManifestError(
            f"{uri} has several columns called {', '.join(twice)}.", remedy="Write it with a name for each column."
        )
    return metadata.num_rows, pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])


def read(unit: Unit, columns: Sequence[str], storage: Storage) -> pa.Table:
    """The unit's rows and columns. Raises ManifestError if the file has not these rows or columns."""
    uri = unit.file.uri
    wanted = tuple(dict.fromkeys(columns))
    with _lock:
        parquet, starts = _file(uri, unit.file.version, storage)
        check_there(parquet.schema_arrow.names, wanted, uri)
        end = unit.first_row + unit.rows
        pieces = []
        for group in range(max(0, bisect_right(starts, unit.first_row) - 1), len(starts) - 1):
            if starts[group] >= end:
                break
            start, stop = max(unit.first_row, starts[group]), min(end, starts[group + 1])
            if start < stop:
                key = (uri, unit.file.version, group, wanted)
                cut = partial(_rows, parquet, key, start - starts[group], stop - starts[group])
                pieces.append(plain(_named(uri, cut)))
        schema = parquet.schema_arrow
    if not pieces:
        pieces = [plain(pa.schema([schema.field(name) for name in wanted]).empty_table())]
    table = pa.concat_tables(pieces, promote_options="permissive").select(list(wanted))
    if table.num_rows != unit.rows:
        raise ManifestError(f"{uri} has {starts[-1]:,} rows, fewer than the run was planned for.")
    return table


def check_there(names: Sequence[str], columns: Sequence[str], uri: str) -> None:
    for column in columns:
        if column not in names:
            raise ManifestError(f'{uri} has no column "{column}"; it has: {", ".join(names)}.')


def check_version(uri: str, planned: str, found: str) -> None:
    """Raises ManifestError if the file is not the one that was planned ("": any)."""
    if planned and planned != found:
        local = not is_s3(uri)
        how = "modification time" if local else "version"
        then, now = (local_time(one) if local else one for one in (planned, found))
        same = f" If its bytes are the same: {touch_command(uri, planned)}" if local else ""
        raise ManifestError(
            f"{uri} changed since the run was planned: its {how} was {then}, now it is {now}.",
            remedy=f"A manifest must not change while it is read: write new rows to new files.{same}",
        )


def plain_type(found: pa.DataType) -> pa.DataType:
    """`found` without the encodings that differ between writers of the same data."""
    if pa.types.is_dictionary(found):
        return plain_type(found.value_type)
    if isinstance(found, pa.BaseExtensionType):
        return plain_type(found.storage_type)
    if pa.types.is_struct(found):
        return pa.struct([pa.field(field.name, plain_type(field.type)) for field in found])
    return _PLAIN.get(found, found)


def plain(table: pa.Table) -> pa.Table:
    """`table` with plain types and without the writer's metadata."""
    return table.cast(pa.schema([pa.field(field.name, plain_type(field.type)) for field in table.schema]))


class _Cursor:
    """A row group being streamed forward."""

    def __init__(self, parquet: pq.ParquetFile, group: int, columns: Sequence[str], batch_rows: int) -> None:
        self._batches: Iterator[pa.RecordBatch] = parquet.iter_batches(
            batch_rows, row_groups=[group], columns=list(columns), use_threads=False
        )
        self._held: list[pa.RecordBatch] = []
        self.first = 0  # row of the group that `_held` begins with
        self._end = 0

    def rows(self, start: int, stop: int) -> pa.Table:
        """Rows of the group; `start` must not be before `first`."""
        while self._end < stop:
            batch = next(self._batches)
            self._held.append(batch)
            self._end += batch.num_rows
            while self._held and self.first + self._held[0].num_rows <= start:
                self.first += self._held.pop(0).num_rows
        table = pa.Table.from_batches(self._held)
        return table.slice(start - self.first, stop - start)


_lock = threading.Lock()
_files: OrderedDict[Any, tuple[pq.ParquetFile, list[int]]] = OrderedDict()
_groups: OrderedDict[Any, tuple[pa.Table, int]] = OrderedDict()
_cursors: OrderedDict[Any, _Cursor] = OrderedDict()


def _file(uri: str, version: str, storage: Storage) -> tuple[pq.ParquetFile, list[int]]:
    """The open file, and the first row of each of its groups, then its row count."""
    key = (uri, version)
    if key not in _files:
        info = storage.info(uri)
        check_version(uri, version, info.version)
        source = storage.open(uri, info=info)
        parquet = _named(uri, lambda: open_parquet(source, buffer_bytes=STREAM_BUFFER_BYTES))
        facts = parquet.metadata
        groups = (facts.row_group(group).num_rows for group in range(facts.num_row_groups))
        _files[key] = parquet, [0, *accumulate(groups)]
        if len(_files) > OPEN_FILES:
            old, (parquet, _) = _files.popitem(last=False)
            for name in [name for name in _cursors if name[:2] == old]:
                del _cursors[name]
            parquet.close(force=True)
    _files.move_to_end(key)
    return _files[key]


def _rows(parquet: pq.ParquetFile, key: Any, start: int, stop: int) -> pa.Table:
    _, _, group, columns = key
    if key in _groups:
        _groups.move_to_end(key)
        return _groups[key][0].slice(start, stop - start)
    facts = parquet.metadata.row_group(group)
    size_bytes = _decoded_bytes(facts, columns)
    if size_bytes <= WHOLE_GROUP_BYTES and facts.num_rows <= WHOLE_GROUP_ROWS:
        table = parquet.read_row_group(group, columns=list(columns), use_threads=False)
        if table.nbytes <= CACHE_BYTES:
            _groups[key] = table, table.nbytes
        while len(_groups) > CACHED_GROUPS or sum(held for _, held in _groups.values()) > CACHE_BYTES:
            _groups.popitem(last=False)
        return table.slice(start, stop - start)
    cursor = _cursors.pop(key, None)
    if cursor is None or cursor.first > start:
        batch_rows = max(1, min(2**14, BATCH_BYTES * facts.num_rows // size_bytes))
        cursor = _Cursor(parquet, group, columns, batch_rows)
    rows = cursor.rows(start, stop)
    _cursors[key] = cursor  # a cursor that failed is not kept
    while len(_cursors) > OPEN_CURSORS:
        _cursors.popitem(last=False)
    return rows


def _decoded_bytes(group: Any, columns: Sequence[str]) -> int:
    sizes = [
        group.column(index).total_uncompressed_size
        for index in range(group.num_columns)
        if group.column(index).path_in_schema.split(".")[0] in {column.split(".")[0] for column in columns}
    ]
    return max(1, sum(sizes))


def _refuse_pickled(uri: str, metadata: Any, schema: pa.Schema) -> None:
    written = (metadata.metadata or {}).get(b"ARROW:schema", b"")
    found = [field.name for field in schema if _PICKLED in _extension(field)]
    if found or _PICKLED.encode() in base64.b64decode(written):
        raise ManifestError(
            f"{uri} has columns of Ray's own extension types ({', '.join(found) or 'inside others'}), "
            "which may hold pickled objects; they are never read.",
            remedy="Write the manifest with plain Parquet types.",
        )


def _extension(field: pa.Field) -> str:
    if isinstance(field.type, pa.BaseExtensionType):
        return str(field.type.extension_name)
    return (field.metadata or {}).get(b"ARROW:extension:name", b"").decode("utf-8", "replace")


def _named(uri: str, call: Callable[[], T]) -> T:
    """`call`, its Arrow errors as ManifestErrors that name the file."""
    try:
        return call()
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise _unreadable(uri, _fault(error, "its rows cannot be decoded")) from error


def _footer_fault(file: BinaryIO, size_bytes: int, error: Exception) -> str:
    """Why there is no footer to read: Arrow's own words are about its insides."""
    if not size_bytes:
        return "it is empty"
    file.seek(0)
    begin = file.read(len(_MAGIC))
    file.seek(max(0, size_bytes - len(_MAGIC)))
    end = file.read(len(_MAGIC))
    if begin == _MAGIC and end != _MAGIC:
        return "its end is missing"
    if end == b"PARE":
        return "it is encrypted"
    return _fault(error, "it does not begin and end like one" if end != _MAGIC else "its footer is damaged")


def _fault(error: Exception, else_: str) -> str:
    if isinstance(error, pa.ArrowNotImplementedError):
        return "it uses a kind of Parquet that is not supported here"
    return error.strerror if isinstance(error, OSError) and error.strerror else else_


def _unreadable(uri: str, why: str) -> ManifestError:
    return ManifestError(f"{uri} is not a readable Parquet file: {why}.", remedy="Write it again, or remove it.")
