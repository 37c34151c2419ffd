"""An audit of a whole output from storage alone: everything held against everything.

It walks units, parts, images and staged files side by side in the order of their names: memory does not grow with rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unipic.pipeline.audit.expectation import Expectation, epochs_of
from unipic.pipeline.audit.files import FileAudit
from unipic.pipeline.audit.report import Problem, ProblemKind, Report
from unipic.pipeline.audit.unit_audit import UnitAudit, audit_unit
from unipic.pipeline.errors import ObjectMissing, OtherOutputVersion, OutputError
from unipic.pipeline.lineage import sha256
from unipic.pipeline.output.layout import EPOCHS, LISTINGS, RUN, SEAL, pack_record_path
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.packs import rejected_kinds_of
from unipic.pipeline.output.run_record import Run, is_listing
from unipic.pipeline.output.seal import CHANGED, check_digest, record_tree, recorded_seal
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import UnitId
from unipic.pipeline.storage.read_ahead import read_ahead
from unipic.pipeline.storage.storage import Storage

AUDITORS = 4  # units read at once: one is decoded while others are on their way


def verify(
    output_uri: str, storage: Storage, *, digest: str = "", on_unit: Callable[[int, int], None] | None = None
) -> Report:
    """Hold everything under `output_uri` against its receipts, and the receipts against the recorded job and manifest.

    Args:
        digest: that `seal` gave: run.json, epochs and receipts must still be those of then.
        on_unit: called with (units audited, units planned) after each unit.

    Raises:
        OutputError: no run has claimed this folder.
        JobError: `digest` is none.
    """
    digest = check_digest(digest) if digest else ""
    ledger = Ledger(output_uri, storage)
    report = Report(ledger.output_uri)
    try:
        run = ledger.recorded()
        expectation = Expectation(run, epochs_of(ledger, run))
    except OutputError as error:
        if isinstance(error, OtherOutputVersion) or ledger.is_unclaimed():
            raise
        where = EPOCHS if EPOCHS in error.message else RUN
        gone = where == RUN and not storage.exists(ledger.uri(RUN))
        message = "is gone. Restore it from a backup." if gone else str(error)
        report.add(Problem(ProblemKind.ALTERED_RECORD, where, message))
        return report
    for problem in _listing_problems(ledger, expectation):
        report.add(problem)
    report.epoch = run.epoch.number
    for problem in _pack_problems(ledger, run):
        report.add(problem)
    snapshot = ledger.snapshot(run)
    report.rows = sum(one.rows for one in run.files) * run.samples_per_row
    _walk(report, ledger, expectation, snapshot, on_unit)
    _check_seal(report, ledger, snapshot, digest)
    if report.ok and report.data + report.rejected != report.rows:
        message = f"{report.data} + {report.rejected} of {report.rows} rows"
        report.add(Problem(ProblemKind.ROW_COUNT, report.output, message))
    return report


def _walk(
    report: Report,
    ledger: Ledger,
    expectation: Expectation,
    snapshot: Snapshot,
    on_unit: Callable[[int, int], None] | None,
) -> None:
    """Audit units and files side by side, and hash the records and receipts on the way."""
    files, tree = FileAudit(ledger, snapshot), record_tree(ledger, expectation.run)
    for audited, (unit, audit) in enumerate(_audits(ledger, expectation, snapshot), start=1):
        _add_unit(report, audit)
        for leaf in audit.leaves:
            tree.add(leaf)
        for problem in files.of_unit(unit, audit):
            report.add(problem)
        if on_unit is not None:
            on_unit(audited, snapshot.planned)
    for problem in files.rest():
        report.add(problem)
    report.digest = tree.root()


def _check_seal(report: Report, ledger: Ledger, snapshot: Snapshot, digest: str) -> None:
    """What was found against `seal.json`, and against the digest that the caller has kept."""
    try:
        seal = recorded_seal(ledger)
    except OutputError as error:
        report.add(Problem(ProblemKind.ALTERED_RECORD, SEAL, str(error)))
        seal = None
    if seal is not None:
        report.seal = "intact" if seal.digest == report.digest else "outdated"
        if report.seal == "outdated" and not seal.is_outdated(snapshot):
            message = "its digest is not that of the records and receipts, and no run has added to them since; restore "
            message += "those, or seal them as they are with `unipic seal`"
            report.add(Problem(ProblemKind.BROKEN_SEAL, SEAL, message))
    if digest and digest != report.digest:
        went_on = seal is not None and seal.digest == digest and seal.is_outdated(snapshot)
        why = f" ({CHANGED}: epoch {seal.epoch}, {seal.receipts:,} receipts then)" if went_on and seal else ""
        message = f"the digest of this output is {report.digest}, not {digest}{why}"
        report.add(Problem(ProblemKind.BROKEN_SEAL, report.output, message))


def _pack_problems(ledger: Ledger, run: Run) -> Iterator[Problem]:
    """What the epoch says of packs, against their records; a pack's file is read with its units."""
    packed = ledger.packed(run)
    for pack in run.epoch.packs:
        try:
            record = packed.record(pack)
        except OutputError as error:
            yield Problem(ProblemKind.ALTERED_RECORD, pack_record_path(pack.id, pack.epoch), error.message)
            continue
        receipts = record.receipts.values()
        kinds = rejected_kinds_of(receipts)
        found = (record.rows, sum(one.ok for one in receipts), kinds, *record.receipts)
        if found != (pack.part.rows, pack.ok, pack.rejected_kinds, *pack.unit_ids(run.rows_per_unit)):
            message = "its units, or their numbers of rows, are not those of its record"
            yield Problem(ProblemKind.ALTERED_RECORD, pack.part.path, message)


def _listing_problems(ledger: Ledger, expectation: Expectation) -> Iterator[Problem]:
    """Listings of images, which are manifest files of our own making, against the digests in the epochs."""
    for file in filter(is_listing, expectation.run.files):
        path = f"{LISTINGS}/{file.name}.parquet"
        try:
            found = sha256(ledger.storage.read(ledger.uri(path)))
        except ObjectMissing:
            found = ""
        if found == expectation.run.digests.get(file.name):
            continue
        if found in expectation.earlier_digests(file.name):
            message = "is the listing of an earlier epoch; the next run writes the new one"
            yield Problem(ProblemKind.UNPUBLISHED, path, message)
        else:
            message = "is gone" if not found else "does not match its digest in the epoch"
            yield Problem(ProblemKind.ALTERED_RECORD, path, f"{message}; restore it from a backup")


def _add_unit(report: Report, audit: UnitAudit) -> None:
    for problem in audit.problems:
        report.add(problem)
    if audit.receipt is not None:
        report.units += 1
        report.data += audit.receipt.ok
        report.rejected += audit.receipt.rejected


def _audits(ledger: Ledger, expectation: Expectation, snapshot: Snapshot) -> Iterator[tuple[UnitId, UnitAudit]]:
    """Every planned unit in the order of names, a few audited at once."""

    def audit(unit: UnitId) -> UnitAudit:
        if unit not in snapshot:
            missing = Problem(ProblemKind.MISSING_UNIT, unit, "has no receipt", unit)
            return UnitAudit(unit, problems=[missing])
        return audit_unit(ledger, expectation, unit, snapshot.commits_of(unit))

    return read_ahead(lambda unit: (unit, audit(unit)), snapshot.all_units(), threads=AUDITORS, ahead=AUDITORS * 4)
