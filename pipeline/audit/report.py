"""What an audit reports: problems by kind, and a verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

LISTED = 1_000  # problems spelled out; all are counted

Verdict = Literal["sound", "incomplete", "damaged"]


class ProblemKind(StrEnum):
    """Kinds of problems; the values are what people and scripts read."""

    MISSING_UNIT = "missing unit"
    UNPUBLISHED = "unpublished part"
    MISSING_PART = "missing part"
    ALTERED_PART = "altered part"
    ALTERED_RECORD = "altered record"
    ROW_COUNT = "row count"
    MISSING_ROW = "missing row"
    DUPLICATE_ROW = "duplicate row"
    FOREIGN_ROW = "foreign row"
    UNDECODABLE_IMAGE = "undecodable image"
    WRONG_LINEAGE = "wrong lineage"
    UNEXPECTED_FILE = "unexpected file"
    LEFT_OVER = "left-over file"
    SUPERSEDED = "superseded file"
    DAMAGED_RECEIPT = "damaged receipt"
    BROKEN_SEAL = "broken seal"
    DIFFERS = "differs when replayed"
    CANNOT_REPLAY = "cannot be replayed"


INCOMPLETE = frozenset({ProblemKind.MISSING_UNIT, ProblemKind.UNPUBLISHED, ProblemKind.LEFT_OVER})
"""What an output shows while its job has work left: the next run of the job finishes it, nothing is damaged."""

RESTORABLE = frozenset({ProblemKind.MISSING_PART, ProblemKind.ALTERED_PART})
"""They leave the receipt trusted: the unit is made again, and put back if its bytes are those of the receipt."""


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it must be.

    Attributes:
        where: the unit's id or the file's path.
        unit: the unit that making again repairs; None where that is no remedy.
        movable: True where `repair` moves the file out of the way.
    """

    kind: ProblemKind
    where: str
    message: str
    unit: str | None = None
    movable: bool = False


@dataclass
class Report:
    """What the audit found.

    Attributes:
        epoch: the output's when the audit began; 0 where its record is damaged.
        rows, data, rejected: output rows planned, and found as data and as rejected rows.
        units: how many units have a sound receipt.
        counts: how many problems there are of each kind.
        problems: the first `LISTED` of them.
        damaged_units: ids of the units that making again repairs.
        distrusted_units: those of them whose receipt itself is wrong, or vouches for wrong rows.
        foreign: paths of all unexpected files that `repair` moves.
        digest: of the records and receipts found, which `seal` gives, too; "" where a record is damaged.
        seal: whether `seal.json` has that digest; "outdated" where the output changed since; "" without a seal.
    """

    output: str
    epoch: int = 0
    rows: int = 0
    data: int = 0
    rejected: int = 0
    units: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    damaged_units: set[str] = field(default_factory=set)
    distrusted_units: set[str] = field(default_factory=set)
    foreign: list[str] = field(default_factory=list)
    digest: str = ""
    seal: Literal["", "intact", "outdated"] = ""

    @property
    def ok(self) -> bool:
        return not self.counts

    @property
    def verdict(self) -> Verdict:
        if self.ok:
            return "sound"
        return "incomplete" if self.counts.keys() <= INCOMPLETE else "damaged"

    def add(self, problem: Problem) -> None:
        self.counts[problem.kind] = self.counts.get(problem.kind, 0) + 1
        if len(self.problems) < LISTED:
            self.problems.append(problem)
        if problem.unit is not None and problem.kind not in INCOMPLETE:
            self.damaged_units.add(problem.unit)
            if problem.kind not in RESTORABLE:
                self.distrusted_units.add(problem.unit)
        if problem.movable:
            self.foreign.append(problem.where)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = {"verdict": self.verdict, **asdict(self), "damaged_units": sorted(self.damaged_units)}
        del facts["foreign"], facts["distrusted_units"]
        return facts
