"""How a run ended: what the driver believes, compared with what storage shows."""

from __future__ import annotations

from typing import Literal

from unipic.pipeline.errors import EngineError
from unipic.pipeline.execution.progress import Result
from unipic.pipeline.execution.stop_policy import StopPolicy
from unipic.pipeline.execution.tally import Tally
from unipic.pipeline.output.reconciliation import Reconciliation
from unipic.pipeline.supervision.failures import RESUME, Failure


def raise_fatal(failure: Failure) -> None:
    """Raises EngineError: `failure` ended the run."""
    remedy = "No unit was started." if failure.stage == "preflight" else RESUME
    error = EngineError(f"{failure.stage}: {failure.message}", remedy=remedy)
    error.add_note(failure.details)
    raise error


def conclude(
    tally: Tally, policy: StopPolicy, seen: Reconciliation, *, seconds: float, output: str, published: bool = True
) -> Result:
    """The result of a run that no failure ended.

    Args:
        seen: what storage shows now.
        published: everything that is committed is where readers look.

    Raises:
        EngineError: units are missing though there was no reason to stop.
    """
    missing = tally.rows_total - seen.ok - seen.rejected
    complete = seen.complete and missing == 0 and published
    if not complete and not policy.stopping:
        lack = seen.lack() or "the receipts' counts are wrong"
        rows = f", {missing} rows have no outcome" if missing else ""
        message = f"Ray stopped without an error before all units were done: {lack}{rows}"
        raise EngineError(message, remedy=RESUME)
    over = seen.rejected_by_now > policy.rejected_allowed
    outcome: Literal["done", "rejected", "stopped"] = "rejected" if over else "done" if complete else "stopped"
    return Result(
        outcome=outcome,
        rows=tally.rows_total,
        ok=seen.ok,
        rejected=seen.rejected,
        earlier=tally.earlier + seen.rows_behind,
        seconds=seconds,
        message=policy.too_many(seen.rejected_by_now) if over else policy.reason,  # units in flight rejected more rows
        output=output,
    )
