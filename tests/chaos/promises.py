"""What must hold of an output after every single request of any process, looked up in its raw files.

A reader lists `data/` and `rejected/` and reads what is there. The checks share no code with what they check but the
names of files and the formats of receipts and epochs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from unipic.pipeline.output.layout import (
    EPOCHS,
    PACKS,
    PUBLISHED,
    RECEIPTS,
    Named,
    pack_attempt,
    pack_record_path,
    parse_pack,
    parse_part,
    parse_receipt,
    staged_path,
)
from unipic.pipeline.output.packed import PackRecord
from unipic.pipeline.output.run_record import Epoch, Run
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import Receipt, Revision, Unit, UnitId

Row = tuple[str, int]
"""Manifest file and row."""
Files = Mapping[str, bytes]
"""Path inside the output → content."""


class Broken(AssertionError):
    """A promise does not hold."""


class Promises:
    """Remembers what processes have done, and so what can no longer be.

    Args:
        conditional: whether the store honours conditional puts.
        version_of: (name, version) of a manifest file → the text that all its prompts of that time begin with.
    """

    def __init__(self, version_of: Callable[[str, str], str], *, conditional: bool) -> None:
        self.version_of, self.conditional = version_of, conditional
        self.over: dict[str, int] = {}
        """File key or unit → no commit before this epoch may be seen any more: a process has withdrawn them."""
        self.retried: dict[tuple[UnitId, int], int] = {}
        """Unit and epoch → the rejected rows of retries before this one may not be seen any more."""
        self.before: dict[str, bytes] = {}
        self.commits = self.packs = 0
        self.damaged: set[UnitId] = set()
        """Units of which a file was damaged and not repaired yet: nothing is promised of them."""

    def withdrew(self, run: Run) -> None:
        for key, number in run.epoch.since.items():
            self.over[key] = max(number, self.over.get(key, 1))

    def committed(self, unit: Unit, receipt: Receipt) -> None:
        key = unit.id, receipt.revision.since
        self.retried[key] = max(receipt.revision.number, self.retried.get(key, 0))

    def recovered(self, known: Snapshot) -> None:
        for unit in known.units():
            revision = known.revision(unit)
            assert revision is not None
            key = unit, revision.since
            self.retried[key] = max(revision.number, self.retried.get(key, 0))

    def check(self, files: Files) -> None:
        """Raises Broken."""
        files = {path: data for path, data in files.items() if parse_pack(path) or not self._is_damaged(path)}
        self._written_once(files)
        epoch = _latest_epoch(files)
        if epoch is None:
            return
        commits = {named: one for named, one in _commits(files).items() if named.unit not in self.damaged}
        self._nothing_but_whole_commits_is_seen(files, epoch, commits)
        _nothing_committed_is_lost(files, epoch, commits)

    def _is_damaged(self, path: str) -> bool:
        return any(unit in path for unit in self.damaged)

    def _written_once(self, files: Files) -> None:
        now = {path: data for path, data in files.items() if path.startswith((RECEIPTS, EPOCHS, PACKS))}
        for path, data in now.items():
            before = self.before.get(path)
            self.commits += before is None and path.startswith(RECEIPTS)
            self.packs += before is None and path.startswith(PACKS)
            if before not in (None, data):
                raise Broken(f"{path} was written twice")
        self.before = now

    def _nothing_but_whole_commits_is_seen(self, files: Files, epoch: Epoch, commits: dict[Named, Receipt]) -> None:
        seen: dict[Row, str] = {}
        for path, data in files.items():
            if not path.startswith(PUBLISHED):
                continue
            named = parse_part(path)
            if named is None:
                self._is_whole_pack(path, data, files)
                for row, _ in _rows(data):
                    if (other := seen.setdefault(row, path)) != path:
                        raise Broken(f"a reader sees {row} in {other} and in {path}")
                continue
            receipt = commits.get(named)
            promised = {part.path: part.sha256 for part in receipt.parts} if receipt else {}
            if promised.get(path) != _sha256(data):
                raise Broken(f"a reader sees {path}, which no receipt names with these bytes")
            since = max(self.over.get(named.unit, 1), self.over.get(named.unit.file_key, 1))
            if named.revision.since < since:
                raise Broken(f"a reader sees {path} although epoch {since} took it back")
            number = self.retried.get((named.unit, named.revision.since), 0)
            if path.startswith("rejected") and named.revision.number < number:
                raise Broken(f"a reader sees {path} although retry {number} took its place")
            for row, prompt in _rows(data):
                if (other := seen.setdefault(row, path)) != path:
                    raise Broken(f"a reader sees {row} in {other} and in {path}")
                self._is_of_its_epoch(row, prompt, named.revision, files)

    def _is_whole_pack(self, path: str, data: bytes, files: Files) -> None:
        """An epoch names it with these bytes. (One that a later epoch dropped is deleted by who opened that.)"""
        epochs = [_epoch(content) for name, content in files.items() if name.startswith(EPOCHS)]
        if not any((path, _sha256(data)) == (one.part.path, one.part.sha256) for at in epochs for one in at.packs):
            raise Broken(f"a reader sees {path}, which no epoch names with these bytes")

    def _is_of_its_epoch(self, row: Row, prompt: str, revision: Revision, files: Files) -> None:
        """A row is made of the manifest file as it was in the epoch since which it counts."""
        epoch = _epoch(files[f"{EPOCHS}/{revision.since:06d}.json"])
        versions = {one.name: one.version for one in epoch.files}
        wanted = self.version_of(row[0], versions[row[0]]) if row[0] in versions else ""
        if revision.since > 1 and prompt and not prompt.startswith(wanted):
            raise Broken(f"{row} of epoch {revision.since} says {prompt!r}, its manifest file says {wanted!r}")


def _nothing_committed_is_lost(files: Files, epoch: Epoch, commits: dict[Named, Receipt]) -> None:
    """Every part of a commit that counts is published, or staged where recovery looks for it."""
    known = {one.key for one in epoch.files}
    packed = _packed_parts(files, epoch, staged=True)
    latest: dict[UnitId, Receipt] = {}
    for named, receipt in commits.items():
        since = max(epoch.since.get(named.unit, 1), epoch.since.get(named.unit.file_key, 1))
        if named.unit.file_key not in known or named.revision.since != since:
            continue
        if named.unit not in latest or latest[named.unit].revision.number < named.revision.number:
            latest[named.unit] = receipt
    for unit, receipt in latest.items():
        rows = 0
        for part in receipt.parts:
            named_part = parse_part(part.path)
            assert named_part is not None
            written_by = commits.get(named_part)
            places = [part.path, *([staged_path(written_by.attempt, part.path)] if written_by else [])]
            found = [files[place] for place in places if place in files]
            if not any(_sha256(data) == part.sha256 for data in found) and part.path not in packed:
                raise Broken(f"{part.path} of a commit that counts is nowhere")
            rows += part.rows
        if rows != receipt.rows:
            raise Broken(f"the receipt of {unit}{receipt.revision.tag} has {rows} of {receipt.rows} rows")


def check_published(files: Files, snapshot: Snapshot) -> None:
    """Every part of these commits can be seen, unless a later commit or epoch took its place."""
    epoch, commits = _latest_epoch(files), _commits(files)
    packed = _packed_parts(files, epoch, staged=False) if epoch else set()
    if epoch is None or epoch.number != snapshot.run.epoch.number:
        return
    for unit in snapshot.units():
        revision = snapshot.revision(unit)
        assert revision is not None
        receipt = commits.get(Named(unit, revision))
        if receipt is None:
            raise Broken(f"the receipt of {unit}{revision.tag} is gone")
        later = Named(unit, Revision(revision.since, revision.number + 1)) in commits
        for part in receipt.parts:
            if part.path not in files and part.path not in packed and not (later and part.path.startswith("rejected")):
                raise Broken(f"a run ended well and {part.path} cannot be seen")


def _latest_epoch(files: Files) -> Epoch | None:
    latest = max((path for path in files if path.startswith(EPOCHS)), default="")
    return _epoch(files[latest]) if latest else None


def _packed_parts(files: Files, epoch: Epoch, *, staged: bool) -> set[str]:
    """Parts whose rows are in a pack that counts and is whole: published or, if asked, staged."""
    found: set[str] = set()
    for pack in epoch.packs:
        places = [pack.part.path, *([staged_path(pack_attempt(pack.id, pack.epoch), pack.part.path)] if staged else [])]
        if any(_sha256(files[place]) == pack.part.sha256 for place in places if place in files):
            record = _record(files[pack_record_path(pack.id, pack.epoch)])
            found |= {part.path for receipt in record.receipts.values() for part in receipt.parts}
    return {path for path in found if path.startswith("data/")}


@lru_cache(512)
def _record(data: bytes) -> PackRecord:
    return PackRecord.from_json(data)


def _commits(files: Files) -> dict[Named, Receipt]:
    """What receipts say, and records of packs; those that a later epoch dropped are there until they are settled."""
    found: dict[Named, Receipt] = {}
    epoch = _latest_epoch(files)
    for path in (pack_record_path(pack.id, pack.epoch) for pack in (epoch.packs if epoch else ())):
        if path not in files:
            raise Broken(f"{path}, the record of a pack that counts, is gone")
    for data in (data for path, data in files.items() if path.startswith(PACKS)):
        found |= {Named(unit, one.revision): one for unit, one in _record(data).receipts.items()}
    for path, data in files.items():
        named = parse_receipt(path)
        if named is not None:
            found.setdefault(named, _receipt(data))
    return found


@lru_cache(4096)
def _epoch(data: bytes) -> Epoch:
    return Epoch.from_json(data)


@lru_cache(4096)
def _receipt(data: bytes) -> Receipt:
    return Receipt.from_json(data)


@lru_cache(4096)
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@lru_cache(4096)
def _rows(data: bytes) -> tuple[tuple[Row, str], ...]:
    """Each row's place and prompt."""
    table = pq.read_table(pa.BufferReader(data))
    column = "lineage" if "lineage" in table.column_names else "rejection"
    origins = table.column(column).to_pylist()
    prompts = table.column("prompt").to_pylist()
    return tuple(
        ((origin["source_file"].rpartition("/")[2], origin["source_row"]), prompt or "")
        for origin, prompt in zip(origins, prompts, strict=True)
    )


def rows_of(files: Files) -> Iterator[tuple[Row, str]]:
    """(row, prompt) of every row in these parts."""
    for data in files.values():
        yield from _rows(data)
