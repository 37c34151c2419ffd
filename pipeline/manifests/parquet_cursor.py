"""Streams of rows out of one row group: forward through a whole one, and through what is left of a damaged one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

SALVAGE_BATCHES = 20_000  # of one row group: it is cut so finely to find where its damage begins
SALVAGE_CURSORS = 16  # one for each column of a group
DAMAGE = (pa.ArrowException, OSError, StopIteration)
"""What Arrow raises for pages that it cannot decode, and for fewer rows than the footer promises."""


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


class Salvage:
    """What can still be read of damaged row groups: of each column the rows before its first damaged page.

    Pages can only be decoded in order, so that all rows after a damaged one are lost too, up to the group's end.
    """

    def __init__(self, parquet: Any) -> None:
        self._parquet = parquet
        self._whole: dict[tuple[int, str], int] = {}
        self._cursors: OrderedDict[tuple[int, str], Cursor] = OrderedDict()

    def whole_rows(self, group: int, column: str) -> int:
        """How many of the group's first rows this column can be read of."""
        key = (group, column)
        if key not in self._whole:
            rows = 0
            try:
                for batch in self._stream(group, column):
                    rows += batch.num_rows
            except DAMAGE:
                pass
            self._whole[key] = rows
        return self._whole[key]

    def rows(self, group: int, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Rows of the group, null in each column where that cannot be read."""
        schema = self._parquet.schema_arrow
        found = [self._column(group, start, stop, schema.field(name)) for name in columns]
        return pa.table(found, schema=pa.schema([pa.field(name, schema.field(name).type) for name in columns]))

    def _column(self, group: int, start: int, stop: int, field: pa.Field) -> pa.ChunkedArray:
        end = max(start, min(stop, self.whole_rows(group, field.name)))
        lost = pa.nulls(stop - end, field.type)
        if end == start:
            return pa.chunked_array([lost], field.type)
        key = (group, field.name)
        cursor = self._cursors.pop(key, None)
        if cursor is None or cursor.first > start:
            cursor = Cursor(self._parquet, group, [field.name], self._batch_rows(group))
        rows = cursor.rows(start, end).column(0)
        self._cursors[key] = cursor
        while len(self._cursors) > SALVAGE_CURSORS:
            self._cursors.popitem(last=False)
        return pa.chunked_array([*rows.chunks, lost], field.type)

    def _stream(self, group: int, column: str) -> Iterator[pa.RecordBatch]:
        batches: Iterator[pa.RecordBatch] = self._parquet.iter_batches(
            self._batch_rows(group), row_groups=[group], columns=[column], use_threads=False
        )
        return batches

    def _batch_rows(self, group: int) -> int:
        rows: int = self._parquet.metadata.row_group(group).num_rows
        return -(-rows // SALVAGE_BATCHES)
