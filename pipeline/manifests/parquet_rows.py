"""Rows of Parquet manifests: just the rows and columns of one unit.

Units of one file come to a process in rising order, with gaps. Small row groups are therefore decoded once and kept in
a bounded cache; large ones are streamed by a cursor that goes on where the last unit of this process ended, so that
neither a million-row group is decoded for each unit nor a group of huge images ever held whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import pyarrow as pa

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.manifests.cache import ManifestCache, Tables, cache_of
from unipic.pipeline.manifests.changes import check_version, current_version
from unipic.pipeline.manifests.parquet_cursor import DAMAGE, Cursor, Salvage
from unipic.pipeline.manifests.parquet_footers import plain_type, reason
from unipic.pipeline.records import ManifestFile, Unit
from unipic.pipeline.storage.errors import from_system
from unipic.pipeline.storage.parquet import open_parquet
from unipic.pipeline.storage.storage import Storage

WHOLE_GROUP_BYTES = 32 * 2**20
WHOLE_GROUP_ROWS = 2**17  # a dictionary can hide how large rows become
BATCH_BYTES = 16 * 2**20
STREAM_BUFFER_BYTES = 4 * 2**20
OPEN_CURSORS = 2  # of one reader: what prepares a unit and what writes its rejected rows read different columns


@dataclass(frozen=True)
class Unreadable:
    """Rows that the file has, by its footer, and that cannot be read. The file is the one that was planned.

    Attributes:
        first_row: of the file.
        why: half a sentence.
    """

    first_row: int
    rows: int
    why: str


def read(
    unit: Unit, columns: Sequence[str], storage: Storage, in_path: Mapping[str, str | None]
) -> tuple[pa.Table, list[Unreadable]]:
    """The unit's rows and columns, and which of these rows are damaged: cells that cannot be read are null.

    Args:
        in_path: columns that stand in the file's path, for those that it has none of.

    Raises:
        ManifestError: the file is another than the one that was planned, or lacks a column.
    """
    file = unit.file
    cache: ManifestCache[Reader] = cache_of(storage)
    version = current_version(file, storage)
    try:
        with cache.readers.borrow((file.uri, version), lambda: Reader(file, version, storage)) as reader:
            wanted = own_columns(reader.schema.names, columns, in_path, file.uri)
            if not wanted:
                return completed(pa.table({}), unit.rows, columns, in_path), []
            pieces, unreadable = [], []
            for piece, lost in reader.rows(unit.first_row, unit.rows, wanted, cache.groups):
                pieces.append(plain(piece))
                unreadable += lost
            if not pieces:
                pieces = [plain(pa.schema([reader.schema.field(name) for name in wanted]).empty_table())]
            table = pa.concat_tables(pieces, promote_options="permissive").select(list(wanted))
            if table.num_rows != unit.rows:
                raise ManifestError(f"{file.uri} has {reader.num_rows:,} rows, fewer than the run was planned for.")
            return completed(table, unit.rows, columns, in_path), unreadable
    except _NoParquet as error:
        names = list(dict.fromkeys(columns))
        nothing = pa.table([pa.nulls(unit.rows)] * len(names), names=names)
        return nothing, [Unreadable(unit.first_row, unit.rows, str(error))]


def own_columns(
    names: Sequence[str], columns: Sequence[str], in_path: Mapping[str, str | None], uri: str
) -> tuple[str, ...]:
    """Those of `columns` that the file has itself. Raises ManifestError for one that is not in its path either."""
    for column in columns:
        if column not in names and column not in in_path:
            raise ManifestError(f'{uri} has no column "{column}"; it has: {", ".join(names)}.')
    return tuple(column for column in dict.fromkeys(columns) if column in names)


def completed(table: pa.Table, rows: int, columns: Sequence[str], in_path: Mapping[str, str | None]) -> pa.Table:
    """Just these columns of `table`, which has `rows` rows; those that it lacks are taken from the file's path."""
    return pa.table(
        {
            column: table.column(column)
            if column in table.column_names
            else pa.repeat(pa.scalar(in_path[column], pa.string()), rows)
            for column in columns
        }
    )


def plain(table: pa.Table) -> pa.Table:
    """`table` with plain types and without the writer's metadata."""
    return pa.table({name: _plain(table.column(name)) for name in table.column_names})


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    wanted = plain_type(column.type)
    if column.type == wanted:  # a cast to the same type fails for a part of nested values with a null type in them
        return column
    if pa.types.is_nested(wanted):
        column = pa.chunked_array([pa.concat_arrays([chunk]) for chunk in column.chunks], column.type)
    return column.cast(wanted)


class _NoParquet(Exception):
    """The file's footer cannot be read."""


class Reader:
    """One open file, for one thread at a time.

    Attributes:
        schema: as the file has it.
        num_rows: of the whole file.
    """

    def __init__(self, file: ManifestFile, version: str, storage: Storage) -> None:
        self._key = (file.uri, version)
        self._source = storage.open(file.uri, info=check_version(replace(file, version=version), storage))
        try:
            self._parquet = open_parquet(self._source, buffer_bytes=STREAM_BUFFER_BYTES, checked=True)
        except DAMAGE as error:
            self._source.close()
            raise _NoParquet(reason(error, "its footer is damaged")) from error
        facts = self._parquet.metadata
        counts = (facts.row_group(group).num_rows for group in range(facts.num_row_groups))
        self._starts = [0, *accumulate(counts)]  # first row of each group, then the row count
        self._cursors: OrderedDict[tuple[int, tuple[str, ...]], Cursor] = OrderedDict()
        self._damaged: dict[tuple[int, tuple[str, ...]], list[Unreadable]] = {}
        self._salvage = Salvage(self._parquet)
        self.schema: pa.Schema = self._parquet.schema_arrow
        self.num_rows = self._starts[-1]

    def rows(
        self, first: int, count: int, columns: tuple[str, ...], groups: Tables
    ) -> Iterator[tuple[pa.Table, list[Unreadable]]]:
        """Rows `first` to `first + count`, as far as there are any, in pieces; `groups` keeps whole row groups."""
        starts, end = self._starts, first + count
        for group in range(max(0, bisect_right(starts, first) - 1), len(starts) - 1):
            if starts[group] >= end:
                return
            start, stop = max(first, starts[group]) - starts[group], min(end, starts[group + 1]) - starts[group]
            if start < stop:
                yield self._piece(group, start, stop, columns, groups)

    def close(self) -> None:
        self._cursors.clear()
        self._parquet.close(force=True)
        self._source.close()

    def _piece(
        self, group: int, start: int, stop: int, columns: tuple[str, ...], groups: Tables
    ) -> tuple[pa.Table, list[Unreadable]]:
        key = (group, columns)
        if key not in self._damaged:
            try:
                return self._decoded(group, start, stop, columns, groups), []
            except DAMAGE as error:
                if isinstance(error, OSError) and error.errno:  # the system's own fault, not the bytes'
                    raise from_system(error, self._key[0]) from error
                self._damaged[key] = self._damage(group, columns, error)
        return self._salvage.rows(group, start, stop, columns), self._damaged[key]

    def _damage(self, group: int, columns: tuple[str, ...], error: Exception) -> list[Unreadable]:
        """Which of the group's rows are lost: no row of a damaged column is taken where another column ends earlier."""
        first, end = self._starts[group], self._starts[group + 1]
        whole = {name: self._salvage.whole_rows(group, name) for name in columns}
        short = [name for name in columns if whole[name] < end - first]
        if not short:
            return []
        lost_from = first + min(whole[name] for name in short)
        named = ", ".join(f'"{name}"' for name in short)
        why = reason(error, f"column{'s' if len(short) > 1 else ''} {named} cannot be decoded there")
        return [Unreadable(lost_from, end - lost_from, why)]

    def _decoded(self, group: int, start: int, stop: int, columns: tuple[str, ...], groups: Tables) -> pa.Table:
        facts = self._parquet.metadata.row_group(group)
        size_bytes = _decoded_bytes(facts, columns)
        if size_bytes > WHOLE_GROUP_BYTES or facts.num_rows > WHOLE_GROUP_ROWS:
            batch_rows = max(1, min(2**14, BATCH_BYTES * facts.num_rows // size_bytes))
            return self._streamed(group, start, stop, columns, batch_rows)
        whole = groups.get(
            (*self._key, group, columns),
            lambda: self._parquet.read_row_group(group, columns=list(columns), use_threads=False),
        )
        if whole.num_rows != facts.num_rows:
            raise StopIteration
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


def _decoded_bytes(group: Any, columns: Sequence[str]) -> int:
    sizes = [
        group.column(index).total_uncompressed_size
        for index in range(group.num_columns)
        if group.column(index).path_in_schema.split(".")[0] in {column.split(".")[0] for column in columns}
    ]
    return max(1, sum(sizes))
