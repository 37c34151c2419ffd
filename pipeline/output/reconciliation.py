"""What storage shows of a run's units when it ends: the last word on whether the work is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import Receipt, UnitId


@dataclass(frozen=True)
class Reconciliation:
    """Counts of output rows and units, as receipts state them.

    Attributes:
        units: planned ones.
        missing: those without a receipt.
        behind: those that were to be attempted once more, and whose receipt is still the earlier one.
        ok, rejected: of all receipts.
        rejected_by_now: without the rows that are still to be attempted once more.
        rows_behind: of the units that are behind.
    """

    units: int
    missing: int
    behind: int
    ok: int
    rejected: int
    rejected_by_now: int
    rows_behind: int

    @property
    def complete(self) -> bool:
        return not (self.missing or self.behind)

    def lack(self) -> str:
        """What is missing, in words."""
        lacks = [f"{self.missing} of {self.units} units have no receipt"] if self.missing else []
        if self.behind:
            lacks.append(f"{self.behind} of {self.units} units still have rejected rows to retry")
        return ", ".join(lacks)


def reconcile(
    planned: Iterable[UnitId],
    ledger: Ledger,
    known: Snapshot,
    *,
    ok: int,
    rejected: int,
    taken_back: Mapping[UnitId, Receipt],
) -> Reconciliation:
    """List the receipts once more, and read only those that this run has not seen.

    Args:
        planned: ids of the units that this run was to bring to their end.
        known: the commits that this run has seen, its own among them.
        ok, rejected: rows of those commits, without the units in `taken_back`.
        taken_back: units that were to be attempted once more and are not committed by this run → their receipt before.
    """
    now = ledger.snapshot(known.run)
    units = missing = behind = waiting = rows_behind = 0
    for unit in planned:
        units += 1
        latest, before = now.revision(unit), known.revision(unit)
        if latest is None:
            missing += 1
            continue
        if unit in taken_back and latest == before:
            receipt = taken_back[unit]
            behind += 1
            waiting += receipt.rejected
            rows_behind += receipt.ok + receipt.rejected
        elif latest == before:
            continue
        else:  # another run committed it
            receipt = ledger.receipt(unit, latest)
            if before is not None and unit not in taken_back:
                seen = ledger.receipt(unit, before)
                ok, rejected = ok - seen.ok, rejected - seen.rejected
        ok, rejected = ok + receipt.ok, rejected + receipt.rejected
    return Reconciliation(units, missing, behind, ok, rejected, rejected - waiting, rows_behind)
