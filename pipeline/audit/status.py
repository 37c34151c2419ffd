"""How an output stands, read from its folder alone: anyone with access can ask, running job or not."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass

from unipic.pipeline.output.heartbeat import at_work
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.stages.commit import REJECTED_KINDS
from unipic.pipeline.storage.storage import Storage

RECENT_UNITS = 50  # the rate is that of the last units, not of a night that was interrupted


@dataclass(frozen=True)
class Status:
    """Counts and pace of one output, and who is at work on it. Rows are output rows; times are Unix seconds.

    Attributes:
        rejected_kinds: why rows were rejected → how many, most first; receipts of an older version do not say.
        eta_s: None where no run is at work.
    """

    name: str
    task: str
    rows: int
    ok: int
    rejected: int
    rejected_kinds: dict[str, int]
    units: int
    units_done: int
    rows_per_s: float
    eta_s: float | None
    started: float | None
    last: float | None
    finished: bool
    at_work: tuple[str, ...]


def status(output_uri: str, storage: Storage) -> Status:
    """Sum the receipts under `output_uri`.

    Raises:
        OutputError: no run has begun there.
    """
    ledger = Ledger(output_uri, storage)
    run = ledger.recorded()
    samples = int(run.fields["params"].get("samples_per_row", 1))
    ok = rejected = done = 0
    kinds: Counter[str] = Counter()
    first = float("inf")
    recent: list[tuple[float, int]] = []
    for receipt in ledger.receipts():
        done += 1
        ok += receipt.ok
        rejected += receipt.rejected
        kinds.update(receipt.facts.get(REJECTED_KINDS, {}))
        at = float(receipt.facts.get("finished", 0.0))
        first = min(first, at)
        recent = heapq.nlargest(RECENT_UNITS, [*recent, (at, receipt.ok + receipt.rejected)])
    rows = sum(one.rows for one in run.files) * samples
    rate = _rate(sorted(recent))
    left = rows - ok - rejected
    others = tuple(at_work(ledger, tidy=False))
    return Status(
        name=run.name,
        task=run.task,
        rows=rows,
        ok=ok,
        rejected=rejected,
        rejected_kinds=dict(kinds.most_common()),
        units=sum(-(-one.rows // run.rows_per_unit) for one in run.files),
        units_done=done,
        rows_per_s=rate,
        eta_s=left / rate if rate and left and others else None,
        started=first if recent else None,
        last=recent[0][0] if recent else None,
        finished=left == 0,
        at_work=others,
    )


def _rate(recent: list[tuple[float, int]]) -> float:
    """Rows a second between the first and the last of `recent` (finish time, rows), 0 where that says nothing."""
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return 0.0
    return sum(rows for _, rows in recent[1:]) / (recent[-1][0] - recent[0][0])
