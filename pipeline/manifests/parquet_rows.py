"""Rows of Parquet manifests: just the rows and columns of one unit.

Units of one file come to a process in rising order, with gaps. Small row groups are therefore decoded once and kept in
a bounded cache; large ones are streamed by a cursor that goes on where the last unit of this process ended, so that
neither a million-row group is decoded for each unit nor a group of huge images ever held whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, TypeVar

import pyarrow as pa

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.manifests.cache import ManifestCache, Tables, cache_of
from unipic.pipeline.manifests.changes import check_version, current_version
from unipic.pipeline.manifests.parquet_footers import plain_type, reason, unreadable
from unipic.pipeline.records import ManifestFile, Unit
from unipic.pipeline.storage.parquet import open_parquet
from unipic.pipeline.storage.storage import Storage

WHOLE_GROUP_BYTES = 32 * 2**20
WHOLE_GROUP_ROWS = 2**17  # a dictionary can hide how large rows become
BATCH_BYTES = 16 * 2**20
STREAM_BUFFER_BYTES = 4 * 2**20
OPEN_CURSORS = 2  # of one reader: what prepares a unit and what writes its rejected rows read different columns
T = TypeVar("T")


def read(unit: Unit, columns: Sequence[str], storage: Storage) -> pa.Table:
    """The unit's rows and columns. Raises ManifestError if the file has not these rows or columns."""
    uri = unit.file.uri
    wanted = tuple(dict.fromkeys(columns))
    cache: ManifestCache[Reader] = cache_of(storage)
    version = current_version(unit.file, storage)
    with cache.readers.borrow((uri, version), lambda: Reader(unit.file, version, storage)) as reader:
        check_there(reader.schema.names, wanted, uri)
        pieces = [plain(piece) for piece in reader.rows(unit.first_row, unit.rows, wanted, cache.groups)]
        if not pieces:
            pieces = [plain(pa.schema([reader.schema.field(name) for name in wanted]).empty_table())]
        table = pa.concat_tables(pieces, promote_options="permissive").select(list(wanted))
        if table.num_rows != unit.rows:
            raise ManifestError(f"{uri} has {reader.num_rows:,} rows, fewer than the run was planned for.")
        return table


def check_there(names: Sequence[str], columns: Sequence[str], uri: str) -> None:
    for column in columns:
        if column not in names:
            raise ManifestError(f'{uri} has no column "{column}"; it has: {", ".join(names)}.')


def plain(table: pa.Table) -> pa.Table:
    """`table` with plain types and without the writer's metadata."""
    return table.cast(pa.schema([pa.field(field.name, plain_type(field.type)) for field in table.schema]))


class Reader:
    """One open file, for one thread at a time.

    Attributes:
        schema: as the file has it.
        num_rows: of the whole file.
    """

    def __init__(self, file: ManifestFile, version: str, storage: Storage) -> None:
        uri = file.uri
        self._key = (uri, version)
        self._source = storage.open(uri, info=check_version(replace(file, version=version), storage))
        self._parquet = _named(uri, lambda: open_parquet(self._source, buffer_bytes=STREAM_BUFFER_BYTES))
        facts = self._parquet.metadata
        counts = (facts.row_group(group).num_rows for group in range(facts.num_row_groups))
        self._starts = [0, *accumulate(counts)]  # first row of each group, then the row count
        self._cursors: OrderedDict[tuple[int, tuple[str, ...]], Cursor] = OrderedDict()
        self.schema: pa.Schema = self._parquet.schema_arrow
        self.num_rows = self._starts[-1]

    def rows(self, first: int, count: int, columns: tuple[str, ...], groups: Tables) -> Iterator[pa.Table]:
        """Rows `first` to `first + count`, as far as there are any, in pieces; `groups` keeps whole row groups."""
        starts, end = self._starts, first + count
        for group in range(max(0, bisect_right(starts, first) - 1), len(starts) - 1):
            if starts[group] >= end:
                return
            start, stop = max(first, starts[group]), min(end, starts[group + 1])
            if start < stop:
                yield self._piece(group, start - starts[group], stop - starts[group], columns, groups)

    def close(self) -> None:
        self._cursors.clear()
        self._parquet.close(force=True)
        self._source.close()

    def _piece(self, group: int, start: int, stop: int, columns: tuple[str, ...], groups: Tables) -> pa.Table:
        facts = self._parquet.metadata.row_group(group)
        size_bytes = _decoded_bytes(facts, columns)
        uri = self._key[0]
        if size_bytes > WHOLE_GROUP_BYTES or facts.num_rows > WHOLE_GROUP_ROWS:
            batch_rows = max(1, min(2**14, BATCH_BYTES * facts.num_rows // size_bytes))
            return _named(uri, lambda: self._streamed(group, start, stop, columns, batch_rows))
        whole = groups.get(
            (*self._key, group, columns),
            lambda: _named(uri, lambda: self._parquet.read_row_group(group, columns=list(columns), use_threads=False)),
        )
        return whole.slice(start, stop - start)

    def _streamed(self, group: int, start: int, stop: int, columns: tuple[str, ...], batch_rows: int) -> pa.Table:
        cursor = self._cursors.pop((group, columns), None)
        if cursor is None or cursor.first > start:
            cursor = Cursor(self._parquet, group, columns, batch_rows)
        rows = cursor.rows(start, stop)
        self._cursors[group, columns] = cursor
        while len(self._cursors) > OPEN_CURSORS:
            self._cursors.popitem(last=False)
        return rows


class Cursor:
    """A row group being streamed forward."""

    def __init__(self, parquet: Any, group: int, columns: Sequence[str], batch_rows: int) -> None:
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


def _decoded_bytes(group: Any, columns: Sequence[str]) -> int:
    sizes = [
        group.column(index).total_uncompressed_size
        for index in range(group.num_columns)
        if group.column(index).path_in_schema.split(".")[0] in {column.split(".")[0] for column in columns}
    ]
    return max(1, sum(sizes))


def _named(uri: str, call: Callable[[], T]) -> T:
    """`call`, its Arrow errors as ManifestErrors that name the file."""
    try:
        return call()
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise unreadable(uri, reason(error, "its rows cannot be decoded")) from error
