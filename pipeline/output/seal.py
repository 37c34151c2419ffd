"""The seal of an output: one digest that pins down every row, for someone who keeps it elsewhere.

The digest is the root of a Merkle tree as RFC 6962 has it: SHA-256, a leaf's hash over 0x00 and its data, a node's over
0x01 and its two children. A leaf's data is a path inside the output, a line feed, and the file's bytes. The leaves are
`run.json`, the epochs, and every receipt that counts, by unit and then by revision. Receipts hold the digests of their
parts, and parts those of images, so a change of any of them changes the root or fails the audit.

`_unipic/seal.json` is a note of that digest. It proves nothing by itself: whoever changes the output can seal it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from unipic.pipeline.code_version import code_version
from unipic.pipeline.errors import JobError, ObjectMissing, OutputError, UniPicError
from unipic.pipeline.output.heartbeat import refuse_beside_runs
from unipic.pipeline.output.layout import RUN, SEAL, epoch_path
from unipic.pipeline.output.ledger import READERS, Ledger
from unipic.pipeline.output.merkle import MerkleTree, leaf_hash
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import Revision, UnitId
from unipic.pipeline.sealed import build, sealed, unsealed
from unipic.pipeline.storage.read_ahead import read_ahead

METHOD = "RFC 6962 Merkle tree hash, SHA-256"
CHANGED = "changed since it was sealed"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Seal:
    """What `seal.json` says.

    Attributes:
        digest: root of the Merkle tree, 64 hex digits.
        epoch, receipts: the output's latest epoch, and how many receipts counted, when it was sealed.
    """

    digest: str
    epoch: int
    receipts: int
    code_version: str
    method: str = METHOD

    def to_json(self) -> bytes:
        return sealed(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Seal:
        """Raises ValueError, saying what is wrong."""
        seal = build(cls, unsealed(data))
        if not _DIGEST.fullmatch(seal.digest) or seal.method != METHOD:
            raise ValueError("it holds no digest that this version knows")
        return seal

    def is_outdated(self, snapshot: Snapshot) -> bool:
        """Whether the output went on since: by a new epoch, or by a retry of rejected rows."""
        now = snapshot.run.epoch.number
        return now > self.epoch or (now == self.epoch and snapshot.commits > self.receipts)


def seal(ledger: Ledger) -> Seal:
    """Write `seal.json` over a finished output. Parts are not read: whether they match their receipts, an audit says.

    Raises:
        OutputError: the output is unfinished, or a receipt or another record is damaged.
        JobError: a run is active there.
    """
    run = ledger.recorded()
    refuse_beside_runs(ledger, "change it", action="Seal it")
    snapshot = ledger.snapshot(run)
    if missing := snapshot.planned - len(snapshot):
        raise OutputError(
            f"{ledger.output_uri} is not finished: {missing:,} of {snapshot.planned:,} units have no receipt",
            remedy="Finish its job with `unipic run`, then seal it.",
        )
    tree = record_tree(ledger, run)
    for leaf in read_ahead(lambda one: receipt_leaf(ledger, *one), _commits(snapshot), threads=READERS, ahead=256):
        tree.add(leaf)
    made = Seal(tree.root(), run.epoch.number, snapshot.commits, code_version())
    ledger.storage.write(ledger.uri(SEAL), made.to_json())
    return made


def seal_again(ledger: Ledger) -> str:
    """Seal a finished output, unless its seal is still up to date; what the user should know of it.

    Nothing that goes wrong here makes a finished job a failed one.
    """
    try:
        there = recorded_seal(ledger)
        if there is None or there.is_outdated(ledger.snapshot(ledger.recorded())):
            there = seal(ledger)
    except UniPicError as error:
        return f"the output is not sealed: {error}"
    return f"the output is sealed: {there.digest}"


def recorded_seal(ledger: Ledger) -> Seal | None:
    """What `seal.json` says; None where there is none.

    Raises:
        OutputError: it is damaged.
    """
    try:
        return Seal.from_json(ledger.storage.read(ledger.uri(SEAL)))
    except ObjectMissing:
        return None
    except ValueError as error:
        raise OutputError(
            f"{ledger.uri(SEAL)} is damaged: {error}",
            remedy="Restore it from a backup, or seal the output again with `unipic seal`.",
        ) from error


def check_digest(text: str) -> str:
    """`text` in lower case. Raises JobError where it is no digest of a seal."""
    if not _DIGEST.fullmatch(text.lower()):
        raise JobError(f"{text!r} is not the digest of a seal: it must have 64 hex digits")
    return text.lower()


def record_tree(ledger: Ledger, run: Run) -> MerkleTree:
    """The tree with the leaves of `run.json` and the epochs; those of the receipts are to follow."""
    tree = MerkleTree()
    for path in (RUN, *(epoch_path(number) for number in range(1, run.epoch.number + 1))):
        try:
            tree.add(leaf_of(path, ledger.storage.read(ledger.uri(path))))
        except ObjectMissing as error:
            raise OutputError(f"{path} is gone", remedy="Restore it from a backup.") from error
    return tree


def receipt_leaf(ledger: Ledger, unit: UnitId, revision: Revision) -> bytes:
    """The leaf of a receipt. Raises as `Ledger.receipt`."""
    path, data, _ = ledger.read_receipt(unit, revision)
    return leaf_of(path, data)


def leaf_of(path: str, data: bytes) -> bytes:
    return leaf_hash(path.encode() + b"\n" + data)


def _commits(snapshot: Snapshot) -> Iterator[tuple[UnitId, Revision]]:
    for unit in snapshot.units():
        for revision in snapshot.commits_of(unit):
            yield unit, revision
