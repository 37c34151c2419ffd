"""Packs: data rows of many units in one large file, as `unipic compact` merges them.

A pack changes where rows are, and nothing else: the receipts of its units are kept as they were, in the pack's record.
The epoch names the packs that count. A retry of a packed unit is a commit after the packed one, as of any unit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from unipic.pipeline.output.layout import NamedPack, parse_pack
from unipic.pipeline.records import Part, Receipt, UnitId
from unipic.pipeline.sealed import build


@dataclass(frozen=True)
class Segment:
    """Consecutive units of one manifest file, by the first rows of the first and the last of them."""

    file_key: str
    first_row: int
    last_row: int

    @property
    def unit(self) -> UnitId:
        """The first unit."""
        return UnitId.of(self.file_key, self.first_row)


@dataclass(frozen=True)
class Pack:
    """One large data file, as the epoch names it.

    Attributes:
        id: 16 hex digits, from its content.
        epoch: the one that committed it.
        segments: its units.
        numbers: unit → the number of its packed commit, where that is not 0.
        units, ok, rejected: counts of those commits.
        rejected_kinds: why rows are rejected → how many.
        finished: Unix seconds of the first and the last of those commits.
        part: the file. It has the units' data rows, unit after unit.
        record_sha256: of the record, which has the units' receipts.
    """

    id: str
    epoch: int
    segments: tuple[Segment, ...]
    numbers: Mapping[str, int]
    units: int
    ok: int
    rejected: int
    rejected_kinds: Mapping[str, int]
    finished: tuple[float, ...]
    part: Part
    record_sha256: str

    @classmethod
    def from_json(cls, value: Any) -> Pack:
        """Raises ValueError, saying what is wrong."""
        pack = build(
            cls,
            value,
            segments=lambda segments: tuple(build(Segment, one) for one in segments),
            finished=tuple,
            part=lambda part: build(Part, part),
        )
        first = pack.segments[0].unit if pack.segments else None
        if first is None or parse_pack(pack.part.path) != NamedPack(pack.id, pack.epoch, first):
            raise ValueError(f"the path of pack {pack.id!r:.200} is not that of its id, epoch and first unit")
        return pack

    def unit_ids(self, rows_per_unit: int) -> Iterator[UnitId]:
        """Its units, in the order of their rows in the file."""
        for one in self.segments:
            for row in range(one.first_row, one.last_row + 1, rows_per_unit):
                yield UnitId.of(one.file_key, row)


def pack_of(
    receipts: Sequence[Receipt], id: str, epoch: int, part: Part, record_sha256: str, rows_per_unit: int
) -> Pack:
    """The pack of these commits, in the order of their rows in `part`."""
    finished = [one.facts.finished for one in receipts]
    return Pack(
        id=id,
        epoch=epoch,
        segments=segments_of([one.unit for one in receipts], rows_per_unit),
        numbers=numbers_of(receipts),
        units=len(receipts),
        ok=sum(one.ok for one in receipts),
        rejected=sum(one.rejected for one in receipts),
        rejected_kinds=rejected_kinds_of(receipts),
        finished=(min(finished), max(finished)),
        part=part,
        record_sha256=record_sha256,
    )


def segments_of(units: Sequence[UnitId], rows_per_unit: int) -> tuple[Segment, ...]:
    """Sorted units as stretches without gaps."""
    found = []
    for (key, _), group in groupby(
        enumerate(units), lambda one: (one[1].file_key, one[1].first_row - one[0] * rows_per_unit)
    ):
        stretch = [unit for _, unit in group]
        found.append(Segment(key, stretch[0].first_row, stretch[-1].first_row))
    return tuple(found)


def rejected_kinds_of(receipts: Iterable[Receipt]) -> dict[str, int]:
    kinds: Counter[str] = Counter()
    for one in receipts:
        kinds.update(one.facts.rejected_kinds)
    return dict(sorted(kinds.items()))


def numbers_of(receipts: Iterable[Receipt]) -> dict[str, int]:
    return {one.unit: one.revision.number for one in receipts if one.revision.number}


class PackIndex:
    """Finds the pack of a unit."""

    def __init__(self, packs: Iterable[Pack]) -> None:
        self.packs = {one.id: one for one in packs}
        self.paths = {one.part.path: one for one in self.packs.values()}
        self._rows: dict[str, list[tuple[int, int, Pack]]] = {}
        for pack in self.packs.values():
            for one in pack.segments:
                self._rows.setdefault(one.file_key, []).append((one.first_row, one.last_row, pack))
        for rows in self._rows.values():
            rows.sort(key=lambda one: one[0])

    def find(self, unit: UnitId) -> Pack | None:
        rows = self._rows.get(unit.file_key, ())
        at = bisect_right(rows, unit.first_row, key=lambda one: one[0]) - 1
        return rows[at][2] if at >= 0 and unit.first_row <= rows[at][1] else None

    def number(self, unit: UnitId) -> int | None:
        """The number of the commit of `unit` that is packed; None where none is."""
        pack = self.find(unit)
        return pack.numbers.get(unit, 0) if pack is not None else None
