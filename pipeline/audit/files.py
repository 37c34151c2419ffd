"""Every file of an output is accounted for: the listings, walked beside the units in the order of names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from unipic.pipeline.audit.report import Problem, ProblemKind
from unipic.pipeline.audit.unit_audit import UnitAudit
from unipic.pipeline.output.layout import (
    CARD,
    CLAIMS,
    EPOCHS,
    EVENTS,
    LISTINGS,
    META,
    PUBLISHED,
    RECEIPTS,
    REPORTS,
    RUN,
    RUNNING,
    SEAL,
    SET_ASIDE,
    STAGING,
    WITHDRAWN,
    epoch_number,
    epoch_path,
    parse_pack,
    parse_part,
    parse_receipt,
    parse_staged,
)
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.output.withdrawal import owner_of
from unipic.pipeline.records import UnitId
from unipic.pipeline.storage.storage import PROBE

SET_ASIDE_MAX_BYTES = 1 << 30  # objects are moved inside the store, but not every store moves larger ones
WALKED = (*PUBLISHED, RECEIPTS, STAGING)
FREE = {
    CLAIMS: re.compile(r"[0-9a-f]{16}\.json"),
    EVENTS: re.compile(r"[0-9a-f-]{36}\.(?:ndjson|unsent)"),
    RUNNING: re.compile(r"[0-9a-f]{32}\.json"),
    REPORTS: re.compile(r"[0-9a-f]{16}-\d{10,18}-rows-\d+-\d+\.txt"),
    WITHDRAWN: re.compile(r"\d{6}\.json"),
    LISTINGS: re.compile(r"listing-[0-9a-f]{16}\.parquet"),
}
"""Folders of notes that no row depends on (but for listings, whose digest the epoch has), and the names in them."""


class FileAudit:
    """Walks the folders whose files belong to units, each listing read once and in step with the units."""

    def __init__(self, ledger: Ledger, snapshot: Snapshot) -> None:
        self.ledger = ledger
        self.snapshot = snapshot
        self.packed = snapshot.run.packed
        self._walks = {folder: _Walk(self._list(folder), self._unit_of) for folder in WALKED}

    def _list(self, folder: str) -> Iterator[str]:
        """Files in the order of their units; packs, which are of many, are left out."""
        return (path for path in self.ledger.list(folder, recursive=True) if parse_pack(path) is None)

    def of_unit(self, unit: UnitId, audit: UnitAudit) -> Iterator[Problem]:
        """What is wrong with the files whose names say that they are of `unit`, or sort before it."""
        for folder, walk in self._walks.items():
            for path, owner in walk.until(unit):
                if owner != unit:
                    yield self._unplanned(path)
                elif folder == STAGING:
                    yield from self._staged(path, audit)
                elif folder == RECEIPTS:
                    yield from self._receipt(path, unit)
                elif path not in audit.files and (audit.receipt is not None or unit not in self.snapshot):
                    yield self._left_over(path, audit)

    def rest(self) -> Iterator[Problem]:
        """What is wrong with files that sort behind every unit, and with those that belong to none."""
        for walk in self._walks.values():
            for path, _ in walk.until(None):
                yield self._unplanned(path)
        for path in self.ledger.list("", recursive=True):
            if parse_pack(path) is not None:
                yield from self._pack(path)
            elif not path.startswith(tuple(f"{folder}/" for folder in WALKED)) and not self._is_known(path):
                yield self._foreign(path)

    def _unit_of(self, path: str) -> UnitId | None:
        """The unit that a file's name says it is of."""
        owner = owner_of(path, self.snapshot.rows_per_unit)
        return owner[0] if owner is not None else None

    def _is_known(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if path in (CARD, RUN, SEAL) or path.startswith((PROBE, f"{SET_ASIDE}/")):
            return True
        if folder == EPOCHS:
            number = epoch_number(path)
            return number is not None and 1 <= number <= self.snapshot.run.epoch.number
        return folder in FREE and FREE[folder].fullmatch(name) is not None

    def _unplanned(self, path: str) -> Problem:
        """A file that is of no planned unit: of rows that were pruned, or foreign."""
        if self._is_over(path):
            return Problem(ProblemKind.SUPERSEDED, path, "is of rows that were pruned; --repair deletes it")
        return self._foreign(path)

    def _foreign(self, path: str) -> Problem:
        owner = owner_of(path, self.snapshot.rows_per_unit)
        if owner is not None and owner[1].since > self.snapshot.run.epoch.number:
            message = f"is gone, and {path} is of it; restore it from a backup"
            return Problem(ProblemKind.ALTERED_RECORD, epoch_path(owner[1].since), message)
        message = "belongs to no receipt"
        if not path.startswith((f"{META}/", *(f"{folder}/" for folder in PUBLISHED))):
            message += "; move it away: --repair moves only files inside data/, rejected/, images/ and _unipic/"
            return Problem(ProblemKind.UNEXPECTED_FILE, path, message)
        if self.ledger.storage.info(self.ledger.uri(path)).size_bytes > SET_ASIDE_MAX_BYTES:
            message += "; move it away: it is larger than what --repair moves"
            return Problem(ProblemKind.UNEXPECTED_FILE, path, message)
        return Problem(ProblemKind.UNEXPECTED_FILE, path, message, movable=True)

    def _staged(self, path: str, audit: UnitAudit) -> Iterator[Problem]:
        found = parse_staged(path)
        assert found is not None
        latest = self.snapshot.revision(found.unit)
        since = self.snapshot.run.since(found.unit)
        settled = found.revision.since < since or (latest is not None and found.revision.number <= latest.number)
        to_publish = audit.receipt is not None and audit.receipt.attempt == found.attempt and found.path in audit.files
        if settled and not to_publish:
            yield Problem(ProblemKind.LEFT_OVER, path, "is of an attempt that lost; the next run deletes it")
        # Else it is of an attempt that may be alive: it is committed later, or deleted once another one is.

    def _receipt(self, path: str, unit: UnitId) -> Iterator[Problem]:
        named = parse_receipt(path)
        assert named is not None
        if self.snapshot.is_packed(named):
            yield Problem(ProblemKind.LEFT_OVER, path, "is of a commit that a pack has; the next run deletes it")
        elif named.revision.since > self.snapshot.run.since(unit):
            yield self._foreign(path)
        elif not self.snapshot.holds(named):
            yield Problem(ProblemKind.LEFT_OVER, path, "is of an epoch that is over; the next run deletes it")

    def _pack(self, path: str) -> Iterator[Problem]:
        named = parse_pack(path)
        assert named is not None
        if named.epoch > self.snapshot.run.epoch.number and (named.staged or named.first is None):
            return  # of a compaction that may be at work
        pack = self.packed.packs.get(named.id)
        if pack is None:
            yield Problem(ProblemKind.SUPERSEDED, path, "is of a pack that was replaced; the next run deletes it")
        elif (named.epoch, named.first or pack.segments[0].unit) != (pack.epoch, pack.segments[0].unit):
            yield self._foreign(path)

    def _left_over(self, path: str, audit: UnitAudit) -> Problem:
        if self.snapshot.holds(parse_part(path)) or self._is_over(path):
            return Problem(ProblemKind.SUPERSEDED, path, "is of an earlier commit; --repair deletes it")
        return self._foreign(path)

    def _is_over(self, path: str) -> bool:
        owner = owner_of(path, self.snapshot.rows_per_unit)
        return owner is not None and owner[1].since < self.snapshot.run.since(owner[0])


class _Walk:
    """One sorted listing, read in step with the units."""

    def __init__(self, paths: Iterator[str], owner: Callable[[str], UnitId | None]) -> None:
        self._paths = paths
        self._owner = owner
        self._ahead: tuple[str, UnitId | None] | None = None

    def until(self, unit: UnitId | None) -> Iterator[tuple[str, UnitId | None]]:
        """The files up to and including those of `unit`; all that are left for None."""
        while (ahead := self._next()) is not None:
            if unit is not None and ahead[1] is not None and ahead[1] > unit:
                return
            self._ahead = None
            yield ahead

    def _next(self) -> tuple[str, UnitId | None] | None:
        if self._ahead is None:
            path = next(self._paths, None)
            self._ahead = None if path is None else (path, self._owner(path))
        return self._ahead
