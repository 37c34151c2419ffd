"""Data rows by the part they were committed in, whether that is a file of its own or inside a pack."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa

from unipic.pipeline.audit.trace import Found
from unipic.pipeline.errors import OutputError
from unipic.pipeline.lineage import from_row
from unipic.pipeline.output.layout import DATA, Named, parse_part
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.packed import Slice
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import UnitId
from unipic.pipeline.storage.parquet import read_part

MOST_MISSES = 10_000  # rows of damaged units that are drawn before a sample is given up


@dataclass(frozen=True)
class Place:
    """One row.

    Attributes:
        part: path of the part that it was committed in.
        at: its place in that part.
        pack: where a pack has that part's rows; None where it has not.
    """

    named: Named
    part: str
    at: int
    pack: Slice | None = None


class OutputRows:
    """The data rows of one output that count."""

    def __init__(self, ledger: Ledger, snapshot: Snapshot) -> None:
        self.ledger = ledger
        self.snapshot = snapshot
        self.packed = ledger.packed(snapshot.run)

    def place(self, found: Found) -> Place:
        """Raises OutputError where the row's file is none of this output's."""
        path = self.ledger.path_of(found.part)
        packed = self.packed.at(path, found.at)
        part, at = (packed[1].path, packed[2]) if packed else (path, found.at)
        named = parse_part(part)
        if named is None:
            raise OutputError(f"{found.part} is no part of this output")
        return Place(named, part, at, self.packed.locate(named.unit, packed[1]) if packed else None)

    def column(self, place: Place, name: str) -> pa.ChunkedArray:
        """A column of the part that the row was committed in.

        Raises:
            OutputError: the file is damaged.
        """
        if place.pack is not None:
            return self.packed.rows(place.pack, [name]).column(name)
        return read_part(self.ledger.uri(place.part), self.ledger.storage, [name]).column(name)

    def sample(self, rows: int, damaged: Collection[str]) -> Iterator[Found]:
        """Rows of randomly chosen files: reading a few files is enough, however many there are.

        Args:
            damaged: ids of units that are passed by.
        """
        paths = [path for path in self.ledger.list(DATA, suffix=".parquet") if self.snapshot.has_data(path)]
        chance = random.SystemRandom()
        left, misses = rows, 0
        while left and paths and misses < MOST_MISSES:
            path = chance.choice(paths)
            unit, at, lineage = self._random_row(path, chance)
            if unit in damaged:
                misses += 1
                continue
            yield Found(self.ledger.output_uri, self.ledger.uri(path), at, {"lineage": from_row(lineage.as_py())})
            left -= 1

    def _random_row(self, path: str, chance: random.Random) -> tuple[UnitId, int, pa.Scalar]:
        pack, named = self.packed.index.paths.get(path), parse_part(path)
        if pack is not None:
            at = chance.randrange(pack.part.rows)
            lineages = self.packed.rows(Slice(path, at, 1), ["lineage"]).column("lineage")
            return self.packed.record(pack).at(at)[1], at, lineages[0]
        assert named is not None
        lineages = read_part(self.ledger.uri(path), self.ledger.storage, ["lineage"]).column("lineage")
        at = chance.randrange(len(lineages))
        return named.unit, at, lineages[at]
