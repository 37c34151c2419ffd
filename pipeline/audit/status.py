"""The progress of an output, read from its folder, while a run is active or not."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from unipic.pipeline.audit.rejections import RejectedKind, Summary
from unipic.pipeline.errors import OutputError
from unipic.pipeline.job import Limits
from unipic.pipeline.output.heartbeat import at_work
from unipic.pipeline.output.layout import RUN
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.output.seal import CHANGED, recorded_seal
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.storage.storage import Storage

RECENT_UNITS = 50  # for the rate, which an earlier interruption must not lower


@dataclass(frozen=True)
class Status:
    """Progress of one output and its active runs. Rows are output rows; times are Unix seconds.

    Attributes:
        rejected_kinds: kind → rows, most frequent first.
        rejections: the same with an example each.
        rejected_allowed: how many rows `limits.max_rejected` allows.
        eta_s: None without an active run.
        complete: every row is accounted for.
        finished: complete, and not more rows are rejected than allowed.
        seal: "sealed", "changed since it was sealed", "seal.json is damaged", or "" without a seal. Whether the digest
            still holds, only `verify` says.
    """

    name: str
    task: str
    rows: int
    ok: int
    rejected: int
    rejected_kinds: dict[str, int]
    rejections: tuple[RejectedKind, ...]
    rejected_allowed: int
    units: int
    units_done: int
    rows_per_s: float
    eta_s: float | None
    started: float | None
    last: float | None
    complete: bool
    finished: bool
    at_work: tuple[str, ...]
    seal: str = ""


def status(output_uri: str, storage: Storage) -> Status:
    """Adds up the receipts under `output_uri`.

    Raises:
        OutputError: the output has no run.
    """
    ledger = Ledger(output_uri, storage)
    run = ledger.recorded()
    snapshot = ledger.snapshot(run)
    counted = _count(ledger, snapshot)
    ok, rejected, summary, recent = counted.ok, counted.rejected, counted.summary, counted.recent
    rows = sum(one.rows for one in run.files) * run.samples_per_row
    rate = _rate(sorted(recent))
    left = rows - ok - rejected
    allowed = _allowed(run, rows)
    others = tuple(at_work(ledger, tidy=False))
    return Status(
        name=run.name,
        task=run.task,
        rows=rows,
        ok=ok,
        rejected=rejected,
        rejected_kinds={kind.kind: kind.rows for kind in summary.kinds() if kind.kind},
        rejections=summary.kinds(),
        rejected_allowed=allowed,
        units=snapshot.planned,
        units_done=len(snapshot),
        rows_per_s=rate,
        eta_s=left / rate if rate and left and others else None,
        started=counted.first if recent else None,
        last=recent[0][0] if recent else None,
        complete=left == 0,
        finished=left == 0 and rejected <= allowed,
        at_work=others,
        seal=_seal(ledger, snapshot),
    )


def _allowed(run: Run, rows: int) -> int:
    """How many rows the recorded job lets fail. Raises OutputError where its record says that in no form of ours."""
    try:
        return Limits(max_rejected=run.job["limits"]["max_rejected"]).rejected_allowed(rows)
    except (ValueError, TypeError, LookupError) as error:
        raise OutputError(
            f"{RUN} of this output names no limits.max_rejected that can be read",
            remedy="Restore it from a backup.",
        ) from error


@dataclass
class _Counted:
    """Sums over receipts. `recent`: (finish time, rows) of the latest units, newest first."""

    summary: Summary
    ok: int = 0
    rejected: int = 0
    first: float = float("inf")
    recent: list[tuple[float, int]] = field(default_factory=list)

    def add(self, first: float, last: float, rows: int) -> None:
        self.first = min(self.first, first)
        self.recent = heapq.nlargest(RECENT_UNITS, [*self.recent, (last, rows)])


def _count(ledger: Ledger, snapshot: Snapshot) -> _Counted:
    """A merged unit is counted with its pack, whose numbers the epoch has."""
    counted = _Counted(Summary(ledger, snapshot.run))
    closed = snapshot.closed_packs()
    for pack in closed:
        counted.ok += pack.ok
        counted.rejected += pack.rejected
        counted.summary.add_pack(pack)
        counted.add(pack.finished[0], pack.finished[-1], 0)
    for receipt in ledger.receipts(snapshot, snapshot.units_outside(closed)):
        counted.ok += receipt.ok
        counted.rejected += receipt.rejected
        counted.summary.add(receipt)
        counted.add(receipt.facts.finished, receipt.facts.finished, receipt.ok + receipt.rejected)
    return counted


def _seal(ledger: Ledger, snapshot: Snapshot) -> str:
    try:
        seal = recorded_seal(ledger)
    except OutputError:
        return "seal.json is damaged"
    return "" if seal is None else CHANGED if seal.is_outdated(snapshot) else "sealed"


def _rate(recent: list[tuple[float, int]]) -> float:
    """Rows a second between the first and the last of `recent` (finish time, rows), 0 where that says nothing."""
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return 0.0
    return sum(rows for _, rows in recent[1:]) / (recent[-1][0] - recent[0][0])
