"""Writes packs, and settles what a compaction leaves: the parts that it replaces go, then the pack is published.

A pack is staged, its epoch opened, and only then settled. Whoever finds a staged pack that counts settles it again:
every step is idempotent. In between, readers of data/ see some rows not at all, but none twice.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from unipic.pipeline.errors import ObjectMissing, OutputError
from unipic.pipeline.lineage import sha256
from unipic.pipeline.output.attempt import publish
from unipic.pipeline.output.layout import (
    DATA,
    PACKS,
    STAGING,
    StagedFile,
    pack_attempt,
    pack_path,
    pack_record_path,
    parse_pack,
    parse_part,
    parse_staged,
    receipt_path,
    staged_path,
)
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.packed import PackRecord, data_parts
from unipic.pipeline.output.packs import Pack, pack_of
from unipic.pipeline.output.part_file import parquet_form
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.records import Part, Receipt, Revision, UnitId
from unipic.pipeline.storage.parquet import read_parquet

GROUP_ROWS, GROUP_BYTES = 2**15, 2**25
"""Of a row group: few for captions, and small enough to page through images."""


class PackWriter:
    """Collects the data rows of units, one unit after another, as one Parquet file in memory."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []
        self.rows = 0
        self._sink = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._group_rows = self._group_bytes = self._waiting_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Of the file so far; rows that wait for their row group count as in their own parts."""
        return self._sink.tell() + self._waiting_bytes

    def takes(self, tables: Sequence[pa.Table]) -> bool:
        """Whether these rows have the columns of those before."""
        schema = self._waiting[0].schema if self._waiting else self._writer.schema if self._writer else None
        return schema is None or all(table.schema.equals(schema) for table in tables)

    def add(self, receipt: Receipt, tables: Sequence[pa.Table]) -> None:
        self.receipts.append(receipt)
        self._waiting_bytes += sum(part.bytes for part in data_parts(receipt))
        for table in tables:
            self._waiting.append(table)
            self._group_rows += table.num_rows
            self._group_bytes += table.nbytes
            self.rows += table.num_rows
            if self._group_rows >= GROUP_ROWS or self._group_bytes >= GROUP_BYTES:
                self._write_group()

    def finish(self) -> bytes:
        """The file. It has at least one row."""
        self._write_group()
        assert self._writer is not None
        self._writer.close()
        return self._sink.getvalue()

    def _write_group(self) -> None:
        if not self._waiting:
            return
        group, options = parquet_form(pa.concat_tables(self._waiting))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._sink, group.schema, write_page_index=True, **options)
        self._writer.write_table(group, row_group_size=group.num_rows)
        self._waiting = []
        self._group_rows = self._group_bytes = self._waiting_bytes = 0


def checked_rows(ledger: Ledger, run: Run, receipt: Receipt) -> list[pa.Table]:
    """The data rows of a unit, held against their digests: damage must not get a new digest.

    Raises:
        OutputError: a part, or the pack it is in, is damaged or gone.
    """
    packed, tables = ledger.packed(run), []
    for part in data_parts(receipt):
        where = packed.locate(receipt.unit, part)
        if pack := packed.index.paths.get(where.path):
            packed.check(pack)
            tables.append(packed.rows(where))
        else:
            tables.append(_checked_part(ledger, part))
    return tables


def _checked_part(ledger: Ledger, part: Part) -> pa.Table:
    remedy = "`unipic verify` names what is damaged, and with --repair makes it again."
    try:
        data = ledger.storage.read(ledger.uri(part.path))
    except ObjectMissing as error:
        raise OutputError(f"{ledger.uri(part.path)} is gone", remedy=remedy) from error
    if sha256(data) != part.sha256:
        raise OutputError(f"{ledger.uri(part.path)} does not match its receipt", remedy=remedy)
    return read_parquet(io.BytesIO(data))


def stage_pack(ledger: Ledger, run: Run, filled: PackWriter) -> Pack:
    """Write a pack for the epoch after `run`'s: it counts once that epoch names it."""
    epoch = run.epoch.number + 1
    record, data = PackRecord(filled.receipts).to_json(), filled.finish()
    digests = sha256(record), sha256(data)
    name = sha256("\n".join(digests).encode())[:16]
    path = pack_path(filled.receipts[0].unit, name, epoch)
    # The record first: where there is none, nothing is staged.
    ledger.storage.write(ledger.uri(pack_record_path(name, epoch)), record)
    ledger.storage.write(ledger.uri(staged_path(pack_attempt(name, epoch), path)), data)
    part = Part(path, filled.rows, len(data), digests[1])
    return pack_of(filled.receipts, name, epoch, part, digests[0], run.rows_per_unit)


def without_units(ledger: Ledger, run: Run, gone: Callable[[UnitId], bool]) -> tuple[Pack, ...]:
    """The packs of the epoch after `run`'s, in which units do not count any more: packs that have some are rewritten.

    Raises:
        OutputError: such a pack is damaged, and has other units, too.
    """
    packs: list[Pack] = []
    for pack in run.epoch.packs:
        units = list(pack.unit_ids(run.rows_per_unit))
        kept = [unit for unit in units if not gone(unit)]
        if len(kept) == len(units):
            packs.append(pack)
            continue
        filled = PackWriter()
        for unit in kept:
            receipt = ledger.packed(run).record(pack).receipts[unit]
            filled.add(receipt, checked_rows(ledger, run, receipt))
        if filled.rows:
            packs.append(stage_pack(ledger, run, filled))
        else:
            put_back(ledger, filled.receipts)
    return tuple(packs)


def put_back(ledger: Ledger, receipts: Iterable[Receipt]) -> None:
    """Receipts of units without data rows, as files: they count once their pack does not."""
    for one in receipts:
        ledger.storage.put_if_absent(ledger.uri(receipt_path(one.unit, one.revision)), one.to_json().encode())


def settle_packs(ledger: Ledger, run: Run) -> None:
    """Delete what packs replaced, and packs that were replaced; publish packs that are still staged.

    A process that read an older epoch can do no harm: files of later epochs are left alone.
    """
    records = list(ledger.list(PACKS))
    if not records:
        return
    packs = run.packed.packs
    staged = [path for path in ledger.list(STAGING, recursive=True) if parse_pack(path)]
    published = list(ledger.list(DATA, prefix="pack-"))
    waiting = []
    for path in [*published, *records, *staged]:
        named = parse_pack(path)
        if named is None or named.epoch > run.epoch.number:
            continue
        if named.id not in packs:
            ledger.storage.delete(ledger.uri(path))
        elif named.staged:
            waiting.append(packs[named.id])
    for pack in waiting:
        _absorb(ledger, run, pack)
    if packs:  # a copy inside the store that was under way when its part was deleted may have brought it back
        returned = (path for path in ledger.list(DATA, prefix="part-") if _is_packed(path, run))
        ledger.storage.delete_all(ledger.uri(path) for path in returned)


def _is_packed(path: str, run: Run) -> bool:
    """Whether a pack has the rows of this part."""
    named = parse_part(path)
    return named is not None and run.is_packed(named.unit, named.revision)


def _absorb(ledger: Ledger, run: Run, pack: Pack) -> None:
    """Delete the files that `pack` replaces, then publish it."""
    record = ledger.packed(run).record(pack)
    staged = ((path, parse_staged(path)) for path in ledger.list(STAGING, recursive=True))
    late = [path for path, one in staged if one and one.unit in record.receipts and _is_replaced(one, record)]
    ledger.storage.delete_all(ledger.uri(path) for path in late)
    ledger.storage.delete_all(ledger.uri(path) for path in _replaced(record))
    try:
        publish(pack_attempt(pack.id, pack.epoch), [pack.part.path], ledger.output_uri, ledger.storage)
    except ObjectMissing:  # another process published it
        return


def _is_replaced(staged: StagedFile, record: PackRecord) -> bool:
    return staged.revision <= record.receipts[staged.unit].revision


def _replaced(record: PackRecord) -> Iterator[str]:
    """The parts whose rows a pack has, and the receipts that its record has."""
    for receipt in record.receipts.values():
        yield from (part.path for part in data_parts(receipt))
        for number in range(receipt.revision.number + 1):
            yield receipt_path(receipt.unit, Revision(receipt.revision.since, number))
