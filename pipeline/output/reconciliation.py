"""What storage shows of a run's units: the last word on whether the work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unipic.pipeline.manifests.manifest import Manifest, units
from unipic.pipeline.output.ledger import Ledger


@dataclass(frozen=True)
class Account:
    """Counts of output rows and units, as receipts say them.

    Attributes:
        units: planned ones.
        missing: those without a receipt.
        behind: those whose rejected rows were to be tried again, and whose receipt is still that of an earlier try.
        ok, rejected: of all receipts.
        rejected_by_now: without the rows that are still to be tried again.
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
        """What is not there, in words."""
        said = [f"{self.missing} of {self.units} units have no receipt"] if self.missing else []
        if self.behind:
            said.append(f"{self.behind} of {self.units} units still have rejected rows to try again")
        return ", ".join(said)


def account(manifest: Manifest, rows_per_unit: int, ledger: Ledger, *, retries: Mapping[str, int]) -> Account:
    """Read what storage shows of the units that `manifest` makes.

    Args:
        retries: unit id → which try of its rejected rows it should have by now.
    """
    planned = {unit.id for unit in units(manifest, rows_per_unit)}
    seen = behind = ok = rejected = waiting = rows_behind = 0
    for receipt in ledger.receipts(sorted(planned & ledger.done())):
        seen += 1
        ok += receipt.ok
        rejected += receipt.rejected
        if receipt.retry < retries.get(receipt.unit, 0):
            behind += 1
            waiting += receipt.rejected
            rows_behind += receipt.ok + receipt.rejected
    return Account(
        units=len(planned),
        missing=len(planned) - seen,
        behind=behind,
        ok=ok,
        rejected=rejected,
        rejected_by_now=rejected - waiting,
        rows_behind=rows_behind,
    )
