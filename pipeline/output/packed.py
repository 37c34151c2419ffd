"""Reads what packs hold: receipts of packed units, and their rows by unit and part."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import pyarrow as pa

from unipic.pipeline.errors import ObjectMissing, OutputError
from unipic.pipeline.lineage import sha256
from unipic.pipeline.output.layout import DATA, check_paths, pack_attempt, pack_record_path, staged_path
from unipic.pipeline.output.packs import Pack, PackIndex
from unipic.pipeline.records import Part, Receipt, Revision, UnitId
from unipic.pipeline.sealed import sealed, unsealed
from unipic.pipeline.storage.parquet import open_parquet
from unipic.pipeline.storage.paths import join
from unipic.pipeline.storage.storage import Storage

REMEDY = "`unipic verify` names what is damaged, and with --repair makes it again."
RECORDS, GROUPS = 4, 4  # kept in memory: of some megabytes, and of some tens of megabytes, each
CHUNK = 2**24
T = TypeVar("T")


@dataclass(frozen=True)
class Slice:
    """Where rows of a part are: in a file of the output, from a row on."""

    path: str
    first: int
    rows: int


class PackRecord:
    """The receipts of a pack's units, in the order of their rows in its file."""

    def __init__(self, receipts: Sequence[Receipt]) -> None:
        self.receipts = {one.unit: one for one in receipts}
        self.parts: list[tuple[int, UnitId, Part]] = []  # first row in the file, unit, part
        row = 0
        for receipt in receipts:
            for part in data_parts(receipt):
                self.parts.append((row, receipt.unit, part))
                row += part.rows
        self.rows = row
        self._first = {part.path: first for first, _, part in self.parts}

    def to_json(self) -> bytes:
        return sealed({"receipts": [one.to_json() for one in self.receipts.values()]}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> PackRecord:
        """Raises ValueError, saying what is wrong."""
        texts = unsealed(data).get("receipts")
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise ValueError("it holds no receipts")
        receipts = [Receipt.from_json(one) for one in texts]
        for one in receipts:
            check_paths(one)
        return cls(receipts)

    def first(self, part: str) -> int | None:
        """The row of the pack's file at which the rows of a part begin; None for a part that is not in it."""
        return self._first.get(part)

    def at(self, row: int) -> tuple[int, UnitId, Part]:
        """The part that a row of the pack's file is of: (its first row there, its unit, the part)."""
        return self.parts[bisect_right(self.parts, row, key=lambda one: one[0]) - 1]


def data_parts(receipt: Receipt) -> list[Part]:
    return [part for part in receipt.parts if part.path.startswith(f"{DATA}/")]


class Packed:
    """Receipts and rows of the packs of one output. Safe in threads."""

    def __init__(self, output_uri: str, storage: Storage, packs: Sequence[Pack] = ()) -> None:
        self.output_uri = output_uri
        self.storage = storage
        self.index = PackIndex(packs)
        self._checked: dict[str, tuple[str, str]] = {}
        self._records: _Kept[PackRecord] = _Kept(RECORDS)
        self._groups: _Kept[pa.Table] = _Kept(GROUPS)

    def record(self, pack: Pack) -> PackRecord:
        """Raises OutputError where it is gone or damaged."""
        return self._records.get(pack.id, lambda: self._read_record(pack))

    def _read_record(self, pack: Pack) -> PackRecord:
        uri = join(self.output_uri, pack_record_path(pack.id, pack.epoch))
        try:
            data = self.storage.read(uri)
            if sha256(data) != pack.record_sha256:
                raise ValueError("it does not match its digest in the epoch")
            return PackRecord.from_json(data)
        except (ValueError, ObjectMissing) as error:
            raise OutputError(f"{uri} is damaged: {error}", remedy="Restore it from a backup.") from error

    def receipt(self, unit: UnitId, revision: Revision) -> Receipt | None:
        """The receipt of a packed commit; None where that commit is in no pack.

        Raises:
            OutputError: the pack's record is damaged.
        """
        pack = self.index.find(unit)
        if pack is None or self.index.number(unit) != revision.number:
            return None
        receipt = self.record(pack).receipts.get(unit)
        return receipt if receipt is not None and receipt.revision == revision else None

    def locate(self, unit: UnitId, part: Part) -> Slice:
        """Where the rows of a unit's part are now.

        Raises:
            OutputError: the record of the unit's pack is damaged.
        """
        pack = self.index.find(unit)
        first = self.record(pack).first(part.path) if pack is not None else None
        if pack is None or first is None:
            return Slice(part.path, 0, part.rows)
        return Slice(pack.part.path, first, part.rows)

    def rows(self, where: Slice, columns: Sequence[str] | None = None) -> pa.Table:
        """These columns of some rows of a pack; default: all.

        Raises:
            OutputError: the file is damaged or gone, or lacks a column.
        """
        pack = self.index.paths[where.path]
        names = None if columns is None else tuple(columns)
        uri = join(self.output_uri, where.path)
        staged = join(self.output_uri, staged_path(pack_attempt(pack.id, pack.epoch), where.path))
        try:
            try:
                tables = self._groups_of(uri, where, names)
            except ObjectMissing:  # committed, and not published yet
                tables = self._groups_of(staged, where, names)
            table = pa.concat_tables(tables)
        except (pa.ArrowException, OSError, ObjectMissing) as error:
            raise OutputError(f"{uri} cannot be read: {str(error).partition('. ')[0]}", remedy=REMEDY) from error
        if table.num_rows != where.rows:
            raise OutputError(f"{uri} lacks rows from {where.first + table.num_rows} on", remedy=REMEDY)
        if missing := [name for name in names or () if name.split(".")[0] not in table.column_names]:
            raise OutputError(f"{uri} has no column {missing[0]!r}, which every part has", remedy=REMEDY)
        return table

    def _groups_of(self, uri: str, where: Slice, names: tuple[str, ...] | None) -> list[pa.Table]:
        """The row groups that hold the rows at `where`, each cut to them."""
        tables, row, last = [], 0, where.first + where.rows
        with self.storage.open(uri) as source:
            file = open_parquet(source)
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row < last and row + rows > where.first:
                    table = self._groups.get((uri, group, names), partial(_group, file, group, names))
                    first = max(where.first - row, 0)
                    tables.append(table.slice(first, min(last - row, rows) - first))
                row += rows
        return tables

    def check(self, pack: Pack) -> str:
        """Hold a pack's file against its digest in the epoch, once; the path that it has now, published or staged.

        Raises:
            OutputError: it is damaged or gone.
        """
        if pack.id not in self._checked:
            self._checked[pack.id] = self._find(pack)
        path, fault = self._checked[pack.id]
        if fault:
            raise OutputError(f"{pack.part.path} {fault}", remedy=REMEDY)
        return path

    def _find(self, pack: Pack) -> tuple[str, str]:
        """Where the file is, and what is wrong with it."""
        for path in (pack.part.path, staged_path(pack_attempt(pack.id, pack.epoch), pack.part.path)):
            try:
                sound = self._digest(join(self.output_uri, path)) == pack.part.sha256
            except ObjectMissing:
                continue
            return path, "" if sound else "does not match its digest in the epoch"
        return "", "is gone"

    def _digest(self, uri: str) -> str:
        digest = hashlib.sha256()
        with self.storage.open(uri) as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def at(self, path: str, row: int) -> tuple[UnitId, Part, int] | None:
        """The unit and part that a row of a pack's file is of, and its place in that part; None for other files."""
        pack = self.index.paths.get(path)
        if pack is None:
            return None
        first, unit, part = self.record(pack).at(row)
        return unit, part, row - first


def _group(file: Any, group: int, names: tuple[str, ...] | None) -> pa.Table:
    return file.read_row_group(group, columns=None if names is None else list(names), use_threads=False)


class _Kept(Generic[T]):
    """The latest few results of costly reads."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, read: Callable[[], T]) -> T:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = read()  # not under the lock: at worst two threads read it
        with self._lock:
            self._values[key] = value
            while len(self._values) > self.most:
                self._values.popitem(last=False)
        return value
