"""What runs that died left behind: committed files are published, files that can never count are deleted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from unipic.pipeline.errors import ObjectMissing, OutputError
from unipic.pipeline.output.attempt import publish, supersede
from unipic.pipeline.output.layout import (
    REJECTED,
    STAGING,
    StagedFile,
    parse_image,
    parse_part,
    parse_staged,
    staged_path,
)
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.pack_files import settle_packs
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import Receipt, Revision
from unipic.pipeline.storage.paths import is_remote
from unipic.pipeline.storage.read_ahead import read_ahead

SETTLERS = 8  # attempts looked after at once, where each takes a few round trips


def recover(ledger: Ledger, snapshot: Snapshot) -> int:
    """Publish what is committed and still staged; delete what another attempt was committed for.

    Files of an attempt at a unit that is not committed stay: that attempt may be alive, and commit.

    Returns:
        How many files were published or deleted.
    """
    settle_packs(ledger, snapshot.run)
    handled = ledger.storage.delete_all(ledger.uri(path) for path in snapshot.over)

    def settle(files: list[StagedFile]) -> int:
        return len(files) if _settle(ledger, snapshot, files) else 0

    attempts = (list(group) for _, group in groupby(staged(ledger), key=lambda one: one.attempt))
    if is_remote(ledger.output_uri):
        handled += sum(read_ahead(settle, attempts, threads=SETTLERS, ahead=2 * SETTLERS))
    else:
        handled += sum(map(settle, attempts))
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
    if revision.since < since or snapshot.run.is_packed(unit, revision):
        delete_staged(ledger, files)
        return True
    if latest is None or revision.since != since or revision.number > latest.number:
        return False
    try:
        receipt = ledger.receipt(unit, revision)
        now = receipt if revision == latest else ledger.receipt(unit, latest)
        if revision.number and revision == latest and receipt.attempt == attempt:
            before = ledger.receipt(unit, Revision(since, revision.number - 1))
            supersede(before, receipt, ledger.output_uri, ledger.storage)
    except OutputError:  # damaged: its audit says so, and repair needs what is staged
        return False
    except ObjectMissing:  # taken back since it was listed
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
    return parse_image(path) is not None or path in {part.path for part in receipt.parts}


def delete_staged(ledger: Ledger, files: list[StagedFile]) -> None:
    ledger.storage.delete_all(ledger.uri(staged_path(one.attempt, one.path)) for one in files)
