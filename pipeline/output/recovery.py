"""What runs that died left behind: committed files are published, files that can never count are deleted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import groupby

from unipic.pipeline.errors import OutputError
from unipic.pipeline.output.attempt import publish
from unipic.pipeline.output.layout import (
    PUBLISHED,
    RECEIPTS,
    REJECTED,
    STAGING,
    StagedFile,
    parse_image,
    parse_part,
    parse_receipt,
    parse_staged,
    staged_path,
    unit_of,
)
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import Receipt, Revision, UnitId


def recover(ledger: Ledger, snapshot: Snapshot) -> int:
    """Publish what is committed and still staged; delete what another attempt was committed for.

    Files of an attempt at a unit that is not committed stay: that attempt may be alive, and commit.

    Returns:
        How many files were published or deleted.
    """
    handled = 0
    for _, group in groupby(staged(ledger), key=lambda one: one.attempt):
        files = list(group)
        handled += len(files) if _settle(ledger, snapshot, files) else 0
    return handled + (_delete_superseded(ledger, snapshot) if snapshot.has_retries else 0)


def staged(ledger: Ledger) -> Iterator[StagedFile]:
    """Every staged file, attempt by attempt."""
    for path in ledger.list(STAGING, recursive=True):
        found = parse_staged(path)
        if found is not None:
            yield found


def _settle(ledger: Ledger, snapshot: Snapshot, files: list[StagedFile]) -> bool:
    """Publish or delete the files of one attempt; False where they must stay."""
    unit, revision, attempt = files[0].unit, files[0].revision, files[0].attempt
    latest = snapshot.revision(unit)
    since = snapshot.run.since(unit)
    if revision.since < since:
        delete_staged(ledger, files)
        return True
    if latest is None or revision.since != since or revision.number > latest.number:
        return False
    try:
        receipt = ledger.receipt(unit, revision)
        now = receipt if revision == latest else ledger.receipt(unit, latest)
    except OutputError:  # damaged: its audit says so, and repair needs what is staged
        return False
    wanted = [one.path for one in files if receipt.attempt == attempt and _counts(one.path, now)]
    publish(attempt, wanted, ledger.output_uri, ledger.storage)
    delete_staged(ledger, [one for one in files if one.path not in wanted])
    return True


def _delete_superseded(ledger: Ledger, snapshot: Snapshot) -> int:
    """Delete rejected parts of commits before a retry; what of them was staged is gone by now."""
    deleted = 0
    for path in ledger.list(REJECTED):
        named = parse_part(path)
        if named is not None and snapshot.holds(named) and named.revision != snapshot.revision(named.unit):
            ledger.storage.delete(ledger.uri(path))
            deleted += 1
    return deleted


def _counts(path: str, receipt: Receipt) -> bool:
    """Whether `path` is still part of the unit that `receipt` describes; images go with their unit's data."""
    return parse_part(path) is None or path in {part.path for part in receipt.parts}


def delete_staged(ledger: Ledger, files: list[StagedFile]) -> None:
    for one in files:
        ledger.storage.delete(ledger.uri(staged_path(one.attempt, one.path)))


def withdraw(ledger: Ledger, run: Run, units: Collection[UnitId] = ()) -> None:
    """Delete what commits of an epoch before `run.epoch.since` published or staged, and those of `units`.

    Staged files go first: a writer of that epoch that wakes later finds nothing that it could publish. Idempotent, so
    that a redo or a prune that died in between is finished by the next run.
    """

    def is_over(unit: UnitId, revision: Revision) -> bool:
        return revision.since < run.since(unit) or unit in units

    delete_staged(ledger, [one for one in staged(ledger) if is_over(one.unit, one.revision)])
    for folder in (*PUBLISHED, RECEIPTS):
        for path in ledger.list(folder):
            named = parse_part(path) or parse_receipt(path)
            if named is not None and is_over(named.unit, named.revision):
                ledger.storage.delete(ledger.uri(path))
            image = parse_image(path)
            if image is not None and is_over(unit_of(image.file_key, image.row, run.rows_per_unit), image.revision):
                ledger.storage.delete(ledger.uri(path))
