"""Withdrawals: deleting what an epoch took back, and only looking where that can be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import takewhile

from unipic.pipeline.output.layout import (
    IMAGES,
    PUBLISHED,
    RECEIPTS,
    STAGING,
    WITHDRAWN,
    names_of,
    parse_image,
    parse_part,
    parse_receipt,
    parse_staged,
    unit_of,
    withdrawn_number,
    withdrawn_path,
)
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.records import KEY_DIGITS, Revision, UnitId
from unipic.pipeline.sealed import sealed

MANY_UNITS = 8  # of one manifest file: listing all of the file's is then cheaper than listing each one's


def withdraw(ledger: Ledger, run: Run, keys: Iterable[str], units: Collection[UnitId] = ()) -> int:
    """Delete what commits of an epoch before `run.epoch.since` published or staged, and all there is of `units`.

    Staged files go first: a writer of that epoch that wakes later finds nothing that it could publish. Idempotent, so
    that a redo or a prune that died in between is finished by the next run.

    Args:
        keys: file keys and unit ids, the only ones that are looked for.

    Returns:
        How many files were deleted.
    """
    deleted = 0
    wanted = _covering([*keys, *units])

    def is_over(path: str) -> bool:
        owner = owner_of(path, run.rows_per_unit)
        return owner is not None and (owner[1].since < run.since(owner[0]) or owner[0] in units)

    for folder in (STAGING, *PUBLISHED, RECEIPTS):
        found = (path for key in wanted for path in paths_of(ledger, folder, key, run.rows_per_unit))
        deleted += ledger.storage.delete_all(ledger.uri(path) for path in found if is_over(path))
    return deleted


def finish_withdrawals(ledger: Ledger, run: Run) -> None:
    """Withdraw again what epochs took back, until one time nothing is left, which is then on record.

    Staged files of a late writer, and receipts that it puts, are deleted by `recover` at any later time.
    """
    finished = max((withdrawn_number(path) or 0 for path in ledger.list(WITHDRAWN)), default=0)
    keys = [key for key, since in run.epoch.since.items() if since > finished]
    if keys and not withdraw(ledger, run, keys):
        number = run.epoch.number
        ledger.storage.put_if_absent(ledger.uri(withdrawn_path(number)), sealed({"epoch": number}).encode())


def paths_of(ledger: Ledger, folder: str, key: str, rows_per_unit: int) -> Iterator[str]:
    """The files in `folder` that are of a manifest file or of a unit. Args: key: its key or id."""
    unit = UnitId.parse(key)
    if folder == IMAGES and unit is not None:  # they are called by their rows
        behind = f"{IMAGES}/{unit}"
        listed = ledger.list(folder, prefix=unit.file_key, start_after=behind)
        end = f"{IMAGES}/{UnitId.of(unit.file_key, unit.first_row + rows_per_unit)}"
        return takewhile(lambda path: path < end, listed)
    return ledger.list(folder, prefix=names_of(folder, key), recursive=folder == STAGING)


def owner_of(path: str, rows_per_unit: int) -> tuple[UnitId, Revision] | None:
    """The unit and the commit that a file's name says it is of; None for other files."""
    named = parse_part(path) or parse_receipt(path) or parse_staged(path)
    if named is not None:
        return named.unit, named.revision
    image = parse_image(path)
    return (unit_of(image.file_key, image.row, rows_per_unit), image.revision) if image is not None else None


def _covering(keys: Iterable[str]) -> list[str]:
    """`keys`, sorted, in which a manifest file stands for its units where it is named itself or they are many."""
    by_file: dict[str, set[str]] = {}
    for key in keys:
        by_file.setdefault(key[:KEY_DIGITS], set()).add(key)
    covering: list[str] = []
    for file_key, found in sorted(by_file.items()):
        covering += [file_key] if file_key in found or len(found) > MANY_UNITS else sorted(found)
    return covering
