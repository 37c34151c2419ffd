"""Repairs an output that its audit found damaged: makes damaged units again, sets foreign files aside.

Nothing is taken away that cannot be made again from here: such a unit stays as it is, with the reason why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from unipic.pipeline.audit.expectation import Expectation, epochs_of
from unipic.pipeline.audit.repair_plan import RepairPlan, plan_repair
from unipic.pipeline.audit.report import ProblemKind, Report
from unipic.pipeline.audit.unit_audit import audit_unit
from unipic.pipeline.errors import JobError, ObjectMissing, OutputError
from unipic.pipeline.execution.progress import OnProgress, Result
from unipic.pipeline.output.claims import take_back_units
from unipic.pipeline.output.heartbeat import refuse_beside_runs
from unipic.pipeline.output.layout import RECEIPTS, SET_ASIDE, parse_part, parse_receipt, receipt_path
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.recovery import recover
from unipic.pipeline.output.withdrawal import paths_of, withdraw
from unipic.pipeline.run import run
from unipic.pipeline.stages.engine import MakeEngine, UniPicEngine
from unipic.pipeline.storage.storage import Storage

DIFFERENT = (
    "it was made again, and its bytes are not those of its receipt: other hardware or libraries, or answers that a "
    "retry had changed. Restore its files; or, to have it as it comes out now, delete {receipt} and run the job."
)


@dataclass(frozen=True)
class Repaired:
    """What `repair` did.

    Attributes:
        units: damaged units that were to be made again.
        left: damaged units that were left untouched, or came out with other bytes than committed → why.
        swept: files of superseded and unfinished attempts that were published or deleted.
        set_aside: foreign files that now are under `_unipic/set-aside/`.
        result: of the run that made the units again; None where there was nothing to do, or it was refused.
        refused: why that run was refused, although nothing spoke against it before; "" where it was not.
    """

    units: int
    swept: int
    set_aside: int
    left: dict[str, str] = field(default_factory=dict)
    result: Result | None = None
    refused: str = ""


def repair(
    output_uri: str,
    storage: Storage,
    report: Report,
    *,
    on_cleared: Callable[[Repaired], None] = lambda _: None,
    on_progress: OnProgress = lambda _: None,
    stop: threading.Event | None = None,
    make_engine: MakeEngine = UniPicEngine,
) -> Repaired:
    """Make the damaged units of `report` again where that is possible, and set foreign files aside.

    A unit whose receipt is sound is made again and put back only if its bytes are those of the receipt: whether that
    worked, the next `verify` says.

    Args:
        report: what `verify` found.
        on_cleared: called before units are made again, with what was done until then.
        stop: set it to end the run of the damaged units early.

    Raises:
        JobError: another run is at work there, or was while the output was audited.
        StorageUnavailable: the store does not answer now.
        UniPicError: something that no retry can help ended the run of the damaged units.
    """
    refuse_beside_runs(Ledger(output_uri, storage), "be making the same units", action="Repair")
    plan = plan_repair(output_uri, storage, report)  # first: damaged units may be all there is of their rows
    done = clear(output_uri, storage, report, plan)
    on_cleared(done)
    if plan.job is None:
        return done
    try:
        result = run(
            plan.job,
            only=plan.files,
            again=plan.restored,
            on_progress=on_progress,
            stop=stop,
            make_engine=make_engine,
        )
    except JobError as error:  # something changed since the plan was made
        return replace(done, refused=str(error))
    return replace(done, result=result, left={**done.left, **not_restored(output_uri, storage, plan)})


def not_restored(output_uri: str, storage: Storage, plan: RepairPlan) -> dict[str, str]:
    """Units of `plan.restored` that are still damaged after they were made again → why."""
    if not plan.restored:
        return {}
    ledger = Ledger(output_uri, storage)
    run = ledger.recorded()
    expectation = Expectation(run, epochs_of(ledger, run))
    snapshot = ledger.snapshot(run)
    left: dict[str, str] = {}
    for unit in sorted(plan.restored):
        commits = list(snapshot.commits_of(unit))
        if commits and audit_unit(ledger, expectation, unit, commits).problems:
            left[unit] = DIFFERENT.format(receipt=receipt_path(unit, commits[-1]))
    return left


def clear(output_uri: str, storage: Storage, report: Report, plan: RepairPlan) -> Repaired:
    """Prepare the output for the run that makes `plan`'s units again; set `report.foreign` aside.

    Raises:
        JobError: an epoch was opened since the audit, which took what is of that epoch for foreign.
    """
    ledger = Ledger(output_uri, storage)
    if report.epoch and report.epoch != ledger.latest_epoch():
        raise JobError(
            f"another process changed {output_uri} while it was audited", remedy="Run the same command again."
        )
    if plan.redone or plan.reset:
        epoch = take_back_units(ledger, plan.redone)
        record = replace(ledger.recorded(), epoch=epoch)
        # Receipts first: a repair that dies in between leaves units to be made, never a done unit in pieces.
        for unit in sorted(plan.reset):
            for path in list(paths_of(ledger, RECEIPTS, unit, record.rows_per_unit)):
                if (named := parse_receipt(path)) is not None and named.unit == unit:
                    _set_aside(ledger, path)
        withdraw(ledger, record, plan.redone, plan.reset)
    if ProblemKind.SUPERSEDED in report.counts:
        record = ledger.recorded()
        withdraw(ledger, record, record.epoch.since)
    for path in report.foreign:
        if not _is_committed(ledger, path):  # since the audit, by a worker that slept through it
            _set_aside(ledger, path)
    try:
        swept = recover(ledger, ledger.snapshot(ledger.recorded()))
    except OutputError:  # run.json or an epoch is damaged: there is nothing to hold files against
        swept = 0
    return Repaired(len(plan.units), swept, len(report.foreign), plan.left)


def _is_committed(ledger: Ledger, path: str) -> bool:
    """Whether a receipt that is there now names this file; a part is published only after its receipt is put."""
    named = parse_part(path)
    if named is None:
        return False
    try:
        return path in {part.path for part in ledger.receipt(named.unit, named.revision).parts}
    except (ObjectMissing, OutputError):
        return False


def _set_aside(ledger: Ledger, path: str) -> None:
    try:
        ledger.storage.move(ledger.uri(path), ledger.uri(f"{SET_ASIDE}/{path}"))
    except ObjectMissing:  # gone since the audit
        return
