"""Counts of a run: what is done, by this run and by earlier ones, and how fast it goes."""

from __future__ import annotations

from dataclasses import dataclass, field

from unipic.pipeline.execution.progress import Progress, Stage
from unipic.pipeline.output.packs import Pack
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import Receipt, UnitId
from unipic.pipeline.supervision.health import Health


@dataclass
class Tally:
    """Counts of units and output rows (manifest rows × samples).

    Attributes:
        rows_total, units_total: of the whole manifest.
        units_done, ok, rejected: of all committed units, whichever run did them.
        earlier: rows of units that earlier runs did.
        taken_back: units of earlier runs that are attempted once more and not committed again yet → their receipt.
        known: takes note of each commit, so that a run can tell its own from other runs' in the end.
    """

    rows_total: int
    units_total: int
    units_done: int = 0
    ok: int = 0
    rejected: int = 0
    earlier: int = 0
    taken_back: dict[UnitId, Receipt] = field(default_factory=dict)
    known: Snapshot | None = None

    @property
    def units_left(self) -> int:
        return self.units_total - self.units_done

    @property
    def rows_left(self) -> int:
        return self.rows_total - self.ok - self.rejected

    def add_earlier(self, receipt: Receipt) -> None:
        """An earlier run committed this unit."""
        self.add(receipt)
        self.earlier += receipt.ok + receipt.rejected

    def add_pack(self, pack: Pack) -> None:
        """Earlier runs committed these units, and they were merged since."""
        self.units_done += pack.units
        self.ok += pack.ok
        self.rejected += pack.rejected
        self.earlier += pack.ok + pack.rejected

    def take_back(self, receipt: Receipt) -> None:
        """A unit that an earlier run committed is attempted once more, or its rejected rows are."""
        self.taken_back[receipt.unit] = receipt
        self.units_done -= 1
        self.ok -= receipt.ok
        self.rejected -= receipt.rejected
        self.earlier -= receipt.ok + receipt.rejected

    def add(self, receipt: Receipt) -> None:
        """A unit is committed."""
        self.taken_back.pop(receipt.unit, None)
        if self.known is not None:
            self.known.add(receipt.unit, receipt.revision)
        self.units_done += 1
        self.ok += receipt.ok
        self.rejected += receipt.rejected

    def progress(
        self, stage: Stage, health: Health | None, *, working_s: float, message: str = "", notes: tuple[str, ...] = ()
    ) -> Progress:
        """How far the run is.

        Args:
            health: None before the supervisor was asked.
            working_s: seconds since the first replica was loaded.
        """
        new = self.ok + self.rejected - self.earlier
        answered = health.rows_answered if health else 0
        on_the_way = min(max(0, answered - new), self.rows_left)
        rate = (new + on_the_way) / working_s if new + on_the_way and working_s > 0 else 0.0
        return Progress(
            stage=stage,
            rows_total=self.rows_total,
            rows_ok=self.ok,
            rows_rejected=self.rejected,
            rows_earlier=self.earlier,
            rows_on_the_way=on_the_way,
            units_total=self.units_total,
            units_done=self.units_done,
            replicas=health.replicas if health else 0,
            rows_per_s=rate,
            eta_s=(self.rows_left - on_the_way) / rate if rate else None,
            message=message,
            notes=notes,
        )
