"""Merges committed parts of many units into few large files. The units, and what is known of them, stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from unipic.pipeline.errors import JobError, OutputError
from unipic.pipeline.output.heartbeat import at_work
from unipic.pipeline.output.layout import DATA, epoch_path
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.pack_files import PackWriter, checked_rows, put_back, settle_packs, stage_pack
from unipic.pipeline.output.packed import data_parts
from unipic.pipeline.output.packs import Pack, numbers_of
from unipic.pipeline.output.recovery import recover
from unipic.pipeline.output.run_record import Run, with_packs
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.output.withdrawal import finish_withdrawals
from unipic.pipeline.records import Receipt, UnitId

PACKS_AT_ONCE = 16  # committed by one epoch: a compaction that dies loses no more work than that
PART_MB, LARGEST_PART_MB = 256, 1024  # a pack is written from memory
AHEAD, AHEAD_BYTES = 16, 2**26  # units whose parts are read at once


@dataclass(frozen=True)
class Compacted:
    """What a compaction did.

    Attributes:
        units: whose rows are in new packs.
        packs: new ones.
        files_before, files_after: data files of the output.
    """

    units: int
    packs: int
    files_before: int
    files_after: int


def compact(
    ledger: Ledger,
    *,
    part_mb: int = PART_MB,
    on_units: Callable[[int, int], None] = lambda done, total: None,
) -> Compacted:
    """Merge parts of consecutive units into files of about `part_mb` MiB (1 to 1024).

    Rows, receipts and what is known of each row stay as they are. A compaction that dies is finished by the next
    command that writes; one that is repeated merges what is new.

    Args:
        on_units: called with (units merged, units to merge).

    Raises:
        OutputError: no run has begun there, a part is damaged, or another process changed the output meanwhile.
        JobError: a run is active there, or `part_mb` is out of range.
    """
    if not 1 <= part_mb <= LARGEST_PART_MB:
        raise JobError(f"part_mb must be from 1 to {LARGEST_PART_MB}, got {part_mb}")
    compaction = Compaction(ledger, part_bytes=part_mb * 2**20, on_units=on_units)
    if others := at_work(ledger):
        raise JobError(
            f"a run is active in {ledger.output_uri} ({'; '.join(others)}) and may write parts",
            remedy="Compact the output after it has ended; `unipic status` shows when.",
        )
    before = _files(ledger)
    compaction.compact()
    return Compacted(compaction.units, compaction.packs, before, _files(ledger))


def _files(ledger: Ledger) -> int:
    return sum(1 for _ in ledger.list(DATA, suffix=".parquet"))


class Compaction:
    """One compaction of an output at which no run is at work.

    Args:
        part_bytes: a pack is closed when it has this size.
        on_units: called with (units merged, units to merge) as it goes.
    """

    def __init__(self, ledger: Ledger, *, part_bytes: int, on_units: Callable[[int, int], None]) -> None:
        self.ledger = ledger
        self.part_bytes = part_bytes
        self.on_units = on_units
        self.run: Run = ledger.recorded()
        self._staged: list[Pack] = []
        self._open: dict[str, int] = {}  # packs that are being replaced → units of them that are not staged yet
        self.units = self.packs = 0

    def compact(self) -> None:
        """Merge what is worth merging; every few packs are committed.

        Raises:
            OutputError: a part is damaged, or another process changed the output meanwhile.
        """
        finish_withdrawals(self.ledger, self.run)  # before `recover`, which deletes receipts of what was taken back
        snapshot = self.ledger.snapshot(self.run)
        recover(self.ledger, snapshot)
        stretches = list(self._stretches(snapshot))
        total, done = sum(map(len, stretches)), 0
        for stretch in stretches:
            filled = PackWriter()
            for receipt, tables in self._read_ahead(snapshot, stretch):
                if filled.size_bytes >= self.part_bytes or not filled.takes(tables):
                    filled = self._close(filled)
                filled.add(receipt, tables)
                done += 1
                self.on_units(done, total)
            self._close(filled)
        self._commit()

    def _stretches(self, snapshot: Snapshot) -> Iterator[list[UnitId]]:
        """Done units that are worth merging, in order, up to the next pack that stays as it is."""
        stays = {pack.id for pack in snapshot.closed_packs() if pack.part.bytes >= self.part_bytes // 2}
        stretch: list[UnitId] = []
        for unit in snapshot.units():
            pack = self.run.packed.find(unit)
            if pack is None or pack.id not in stays:
                stretch.append(unit)
            elif stretch:
                yield stretch
                stretch = []
        if stretch:
            yield stretch

    def _read_ahead(self, snapshot: Snapshot, units: list[UnitId]) -> Iterator[tuple[Receipt, list[pa.Table]]]:
        """The units' receipts and data rows, a few read at once."""

        run = self.run

        def read(receipt: Receipt) -> tuple[Receipt, list[pa.Table]]:
            return receipt, checked_rows(self.ledger, run, receipt)

        chunk: list[Receipt] = []
        with ThreadPoolExecutor(AHEAD) as pool:
            for receipt in self.ledger.receipts(snapshot, units):
                chunk.append(receipt)
                size = sum(part.bytes for one in chunk for part in data_parts(one))
                if len(chunk) == AHEAD or size >= AHEAD_BYTES:
                    yield from pool.map(read, chunk)
                    chunk = []
            yield from pool.map(read, chunk)

    def _close(self, filled: PackWriter) -> PackWriter:
        """Stage a pack, and commit those staged so far where there are enough; an empty one for what follows."""
        replaced = [self.run.packed.find(one.unit) for one in filled.receipts]
        if not any(replaced) and (len(filled.receipts) < 2 or not filled.rows):
            return PackWriter()
        if _is_pack_already(filled, {pack.id: pack for pack in filter(None, replaced)}):
            return PackWriter()
        for pack in filter(None, replaced):
            self._open[pack.id] = self._open.get(pack.id, pack.units) - 1
        if filled.rows:
            self._staged.append(stage_pack(self.ledger, self.run, filled))
            self.units += len(filled.receipts)
        else:
            put_back(self.ledger, filled.receipts)
        if len(self._staged) >= PACKS_AT_ONCE and not any(self._open.values()):
            self._commit()
        return PackWriter()

    def _commit(self) -> None:
        """Open the epoch in which the staged packs count, and settle them."""
        if not self._staged and not self._open:
            return
        kept = [pack for pack in self.run.epoch.packs if pack.id not in self._open]
        epoch = with_packs(self.run, [*kept, *self._staged])
        if not self.ledger.storage.put_if_absent(self.ledger.uri(epoch_path(epoch.number)), epoch.to_json()):
            raise OutputError(
                f"{self.ledger.output_uri} was changed by another process while it was compacted",
                remedy="Run the same command again.",
            )
        self.packs += len(self._staged)
        # Not the latest epoch: one that another process opened meanwhile must refuse the next of ours.
        self.run = replace(self.run, epoch=epoch)
        settle_packs(self.ledger, self.run)
        self._staged, self._open = [], {}


def _is_pack_already(filled: PackWriter, replaced: dict[str, Pack]) -> bool:
    """Whether these are the commits of one pack, all of them and no others."""
    if len(replaced) != 1:
        return False
    (pack,) = replaced.values()
    return pack.units == len(filled.receipts) and pack.numbers == numbers_of(filled.receipts)
