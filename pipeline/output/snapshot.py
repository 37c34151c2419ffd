"""Which units of an output are done, from one listing of its receipts: two bytes a unit, and no receipt is read."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace

from unipic.pipeline.output.layout import Named, parse_part, parse_receipt
from unipic.pipeline.output.packs import Pack, PackIndex
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.records import Revision, Unit, UnitId

LARGEST_NUMBER = 65_534
MOST_OVER = 10_000  # paths kept; what is over beyond them is found another time


class Snapshot:
    """The latest counting commit of every planned unit.

    Args:
        run: whose files and epochs decide which commits count.
        paths: of receipts, relative to the output folder; others, and those that do not count, are passed over.

    Attributes:
        over: those of `paths` that are of an epoch that is over, or of a commit that a pack holds.
    """

    def __init__(self, run: Run, paths: Iterable[str] = ()) -> None:
        self.run = run
        self.rows_per_unit = run.rows_per_unit
        self._cells = {one.key: array("H", bytes(2 * -(-one.rows // self.rows_per_unit))) for one in run.files}
        self._done = 0
        self.has_retries = False
        self.over: list[str] = []
        self._reopened: set[str] = set()
        self._add_packs()
        for path in paths:
            named = parse_receipt(path)
            if named is None or (not self.is_packed(named) and self.add(named.unit, named.revision)):
                continue
            is_over = named.revision.since < run.since(named.unit) or self.is_packed(named)
            if is_over and len(self.over) < MOST_OVER:
                self.over.append(path)

    def is_packed(self, named: Named) -> bool:
        """Whether a pack holds this commit, or one after it."""
        return self.run.is_packed(named.unit, named.revision)

    def _add_packs(self) -> None:
        """Take note of the commits that packs hold."""
        for pack in self.run.epoch.packs:
            for one in pack.segments:
                cells = self._cells.get(one.file_key, array("H"))
                first, last = one.first_row // self.rows_per_unit, one.last_row // self.rows_per_unit + 1
                cells[first:last] = array("H", [1]) * len(cells[first:last])
            for unit, number in pack.numbers.items():
                known, at = self._cell(UnitId(unit))
                if known is not None:
                    known[at] = number + 1
                self.has_retries = True
            self._done += pack.units

    def add(self, unit: UnitId, revision: Revision) -> bool:
        """Take note of a commit; False where it does not count (no planned unit, or an epoch that is over)."""
        cells, at = self._cell(unit)
        if cells is None or revision.since != self.run.since(unit) or revision.number > LARGEST_NUMBER:
            return False
        pack = self.run.packed.find(unit)
        if pack is not None and revision.number > pack.numbers.get(unit, 0):
            self._reopened.add(pack.id)
        self._done += not cells[at]
        self.has_retries = self.has_retries or revision.number > 0
        cells[at] = max(cells[at], revision.number + 1)
        return True

    def __contains__(self, unit: object) -> bool:
        return isinstance(unit, UnitId) and self.revision(unit) is not None

    def __len__(self) -> int:
        """How many units are done."""
        return self._done

    @property
    def commits(self) -> int:
        """How many commits count, those before a retry among them."""
        return sum(sum(cells) for cells in self._cells.values())

    @property
    def planned(self) -> int:
        """How many units the recorded manifest makes."""
        return sum(len(cells) for cells in self._cells.values())

    def is_planned(self, unit: UnitId) -> bool:
        return self._cell(unit)[0] is not None

    def revision(self, unit: UnitId) -> Revision | None:
        """The latest commit of `unit` that counts; None where it is not done."""
        cells, at = self._cell(unit)
        return Revision(self.run.since(unit), cells[at] - 1) if cells is not None and cells[at] else None

    def closed_packs(self) -> list[Pack]:
        """Packs whose commits are all the latest ones: their counts stand for the receipts in them."""
        return [pack for pack in self.run.epoch.packs if pack.id not in self._reopened]

    def units_outside(self, packs: Iterable[Pack]) -> Iterator[UnitId]:
        """The units that are done and in none of `packs`, sorted."""
        index = PackIndex(packs)
        return (unit for unit in self.units() if index.find(unit) is None)

    def commits_of(self, unit: UnitId) -> Iterator[Revision]:
        """The commits of a unit that count and have a receipt: the latest, and those before a retry."""
        latest = self.revision(unit)
        if latest is not None:
            first = self.run.packed.number(unit) or 0
            yield from (Revision(latest.since, number) for number in range(first, latest.number + 1))

    def holds(self, named: Named | None) -> bool:
        """Whether a part of this name is, or was until a later retry, one of a commit that counts."""
        latest = self.revision(named.unit) if named is not None else None
        if named is None or latest is None:
            return False
        return named.revision.since == latest.since and named.revision.number <= latest.number

    def has_data(self, path: str) -> bool:
        """Whether a file in data/ has rows that count: it is a part that no pack took in, or a pack."""
        named = parse_part(path)
        if named is None:
            return path in self.run.packed.paths
        return self.holds(named) and not self.is_packed(named)

    def units(self, *, done: bool = True) -> Iterator[UnitId]:
        """The units that are done (or those that are not), sorted."""
        for key in sorted(self._cells):
            for at, cell in enumerate(self._cells[key]):
                if bool(cell) is done:
                    yield UnitId.of(key, at * self.rows_per_unit)

    def all_units(self) -> Iterator[UnitId]:
        """Every planned unit, sorted."""
        for key in sorted(self._cells):
            for at in range(len(self._cells[key])):
                yield UnitId.of(key, at * self.rows_per_unit)

    def ready(self, unit: Unit) -> Unit:
        """`unit` as the work for its first commit, or to restore that where it is done."""
        return replace(unit, revision=Revision(self.run.since(unit.id)), restores=unit.id in self)

    def left(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Those of `units` that are not done, ready for their first commit."""
        return (self.ready(unit) for unit in units if unit.id not in self)

    def _cell(self, unit: UnitId) -> tuple[array[int] | None, int]:
        cells = self._cells.get(unit.file_key)
        at, rest = divmod(unit.first_row, self.rows_per_unit)
        return (cells, at) if cells is not None and not rest and at < len(cells) else (None, 0)
