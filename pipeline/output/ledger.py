"""The books of one output folder: whose it is, which epoch it is in, and which units are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from unipic.pipeline.errors import ObjectMissing, OtherOutputVersion, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.changes import differences
from unipic.pipeline.output.layout import (
    EPOCHS,
    LISTINGS,
    RECEIPTS,
    REJECTED,
    RUN,
    check_paths,
    epoch_number,
    epoch_path,
    receipt_path,
)
from unipic.pipeline.output.packed import Packed, data_parts
from unipic.pipeline.output.run_record import Epoch, Identity, Run, fingerprint_fields
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import OUTPUT_VERSION, ManifestFile, Part, Receipt, Revision, Unit, UnitId
from unipic.pipeline.storage.parquet import read_parquet, read_part
from unipic.pipeline.storage.paths import is_remote, join, local_path, relative
from unipic.pipeline.storage.read_ahead import read_ahead
from unipic.pipeline.storage.storage import Storage

READERS = 16  # receipts read at once: each is one small round trip


class Ledger:
    """Reads the books of one output folder. `output/claims.py` and the commit stage write them."""

    def __init__(self, output_uri: str, storage: Storage) -> None:
        self.output_uri = output_uri
        self.storage = storage
        self._identity: Identity | None = None
        self._epoch: Epoch | None = None
        self._packed: Packed | None = None

    def uri(self, path: str) -> str:
        """The address of a path inside the output."""
        return join(self.output_uri, path)

    def path_of(self, uri: str) -> str:
        """`uri` backwards, for addresses that a listing of this output, or `uri`, gave."""
        if is_remote(self.output_uri):
            return relative(uri, self.output_uri)
        return relative(local_path(uri), local_path(self.output_uri))

    def list(
        self, folder: str, *, suffix: str = "", recursive: bool = False, prefix: str = "", start_after: str = ""
    ) -> Iterator[str]:
        """Paths inside the output, sorted. Args: as of `Storage.list`; `start_after` is a path, too."""
        behind = self.uri(start_after) if start_after else ""
        listed = self.storage.list(
            self.uri(folder),
            suffix=suffix,
            recursive=recursive,
            prefix=prefix,
            start_after=behind if is_remote(behind) else local_path(behind),
        )
        return (self.path_of(one.uri) for one in listed)

    def run(self) -> Run | None:
        """Whose output this is, and its current epoch; None in a folder that no run has claimed.

        Raises:
            OutputError: a file of the record is damaged.
        """
        identity = self.identity()
        if identity is None:
            return None
        number = self.latest_epoch()
        if not number:  # claimed, and its first epoch not written yet
            return Run(identity, Epoch(0, "claim", identity.fingerprint, (), identity.code_version))
        return Run(identity, self.epoch(number, identity))

    def identity(self) -> Identity | None:
        """What `run.json` says, which is written once and so read once. Raises OutputError where it is damaged."""
        if self._identity is not None:
            return self._identity
        try:
            self._identity = Identity.from_json(self.storage.read(self.uri(RUN)))
            return self._identity
        except ObjectMissing:
            return None
        except ValueError as error:
            raise OutputError(
                f"{self.uri(RUN)} is damaged: {error}",
                remedy="Restore it from a backup, or choose another output folder.",
            ) from error

    def latest_epoch(self) -> int:
        """The number of the current epoch; 0 before the first."""
        return max((epoch_number(path) or 0 for path in self.list(EPOCHS, suffix=".json")), default=0)

    def epoch(self, number: int, identity: Identity) -> Epoch:
        """One epoch; the latest that was asked for is not read again, as it is written once.

        Raises:
            OutputError: the epoch's file is damaged, or another output's.
        """
        if self._epoch is not None and self._epoch.number == number:
            return self._epoch
        uri = self.uri(epoch_path(number))
        remedy = "Restore it from a backup, or choose another output folder."
        try:
            epoch = Epoch.from_json(self.storage.read(uri))
        except (ValueError, ObjectMissing) as error:
            raise OutputError(f"{uri} is damaged: {error}", remedy=remedy) from error
        if epoch.number != number or epoch.fingerprint != identity.fingerprint:
            raise OutputError(f"{uri} is not epoch {number} of the output that {RUN} describes", remedy=remedy)
        self._epoch = epoch
        return epoch

    def is_unclaimed(self) -> bool:
        """Whether no run has got as far as its first epoch: then there is nothing here that could be damaged."""
        return not self.latest_epoch() and next(self.list(RECEIPTS), None) is None

    def recorded(self) -> Run:
        """`run`, where there must be one.

        Raises:
            OutputError: no run has claimed this folder, or its record is damaged.
            OtherOutputVersion: its rows are of another output version.
        """
        run = self.run()
        if run is not None and not run.epoch.number and not self.is_unclaimed():
            remedy = "Restore it from a backup, or choose another output folder."
            raise OutputError(f"{self.uri(epoch_path(1))} is gone, and there are receipts of it", remedy=remedy)
        if run is None or not run.epoch.number:
            remedy = "Give the output.uri of a job that was run."
            raise OutputError(f"{self.output_uri} holds no output of ours", remedy=remedy)
        _check_version(run, self.output_uri)
        return run

    def listings(self) -> Sequence[str]:
        """URIs of the listings of images kept so far."""
        # Spelled as when they were stored, since rows name their source file: a list leaves "file://" out.
        return [self.uri(path) for path in self.list(LISTINGS, suffix=".parquet")]

    def listing_uri(self, name: str) -> str:
        return self.uri(f"{LISTINGS}/{name}.parquet")

    def discover(self, job: Job) -> Manifest:
        """The job's manifest as it is now, without this output; images listed by earlier runs keep their rows."""
        return discover(job.input, self.storage, listings=self.listings(), outside=self.output_uri)

    def check_owner(self, job: Job, checkpoint_digest: str) -> Run | None:
        """Refuse another job's folder.

        Raises:
            OutputError: naming every field that differs.
            OtherOutputVersion: no version of this job can go on with it.
        """
        there = self.run()
        if there is None:
            return None
        _check_version(there, self.output_uri)
        differ = differences(there.fields, fingerprint_fields(job, checkpoint_digest))
        if differ:
            raise OutputError(
                f"{self.output_uri} holds the output of job {there.name!r}, which differs from this one in "
                + "; ".join(differ),
                remedy="Choose another output.uri, or give the job the settings it had.",
            )
        return there

    def snapshot(self, run: Run) -> Snapshot:
        """Which units are done: one listing, and no receipt is read."""
        self.packed(run)
        return Snapshot(run, self.list(RECEIPTS, suffix=".json"))

    def packed(self, run: Run) -> Packed:
        """What the packs of `run` hold."""
        known = self._packed
        if known is None or known.index.packs.keys() != run.packed.packs.keys():
            known = self._packed = Packed(self.output_uri, self.storage, run.epoch.packs)
        return known

    def receipts(self, snapshot: Snapshot | None = None, units: Iterable[UnitId] | None = None) -> Iterator[Receipt]:
        """The latest receipt of every done unit (or those of `units`), a few read at a time: memory stays flat.

        Args:
            snapshot: of this output, where the caller has one.

        Raises:
            OutputError: a receipt is damaged.
        """
        known = snapshot if snapshot is not None else self.snapshot(self.recorded())

        def read(unit: UnitId) -> Receipt | None:
            revision = known.revision(unit)
            return self.receipt(unit, revision) if revision is not None else None

        names = known.units() if units is None else units
        found = read_ahead(read, names, threads=READERS, ahead=READERS * 16)
        return (receipt for receipt in found if receipt is not None)

    def receipt(self, unit: UnitId, revision: Revision) -> Receipt:
        """The receipt of one commit.

        Raises:
            OutputError: it is damaged, or another commit's.
            ObjectMissing: there is none.
        """
        return self.read_receipt(unit, revision)[2]

    def read_receipt(self, unit: UnitId, revision: Revision) -> tuple[str, bytes, Receipt]:
        """Its path, its bytes, and what they say, also where a pack has it. Raises as `receipt`."""
        path = receipt_path(unit, revision)
        packed = self._packed.receipt(unit, revision) if self._packed is not None else None
        try:
            data = packed.to_json().encode() if packed is not None else self.storage.read(self.uri(path))
        except ObjectMissing:
            run = self.run()  # a compaction may have taken it in
            packed = self.packed(run).receipt(unit, revision) if run is not None else None
            if packed is None:
                raise
            data = packed.to_json().encode()
        if packed is not None:
            return path, data, packed
        try:
            receipt = Receipt.from_json(data)
            if (receipt.unit, receipt.revision) != (unit, revision):
                raise ValueError(f"it is the receipt of {receipt.unit}{receipt.revision.tag}")
            check_paths(receipt)
        except ValueError as error:
            remedy = "`unipic verify --repair` does its unit again."
            raise OutputError(f"the receipt {self.uri(path)} is damaged: {error}", remedy=remedy) from error
        return path, data, receipt

    def data(self, receipt: Receipt, columns: Sequence[str] | None = None) -> Iterator[tuple[Part, pa.Table]]:
        """The data rows of a unit, part by part: read from where they are now, be it in a pack.

        Raises:
            OutputError: a file is damaged or gone.
        """
        packed = self.packed(self.recorded()) if self._packed is None else self._packed
        for part in data_parts(receipt):
            where = packed.locate(receipt.unit, part)
            if where.path in packed.index.paths:
                yield part, packed.rows(where, columns)
            else:
                yield part, read_part(self.uri(where.path), self.storage, columns)

    def retry(self, receipt: Receipt, file: ManifestFile) -> Unit:
        """The unit of `receipt` as work on just its rejected rows."""
        revision = Revision(receipt.revision.since, receipt.revision.number + 1)
        return Unit(file, receipt.first_row, receipt.rows, tuple(self.rejected(receipt)), revision)

    def rejected(self, receipt: Receipt) -> Sequence[tuple[int, int]]:
        """(row, sample) of the unit's rejected rows."""
        found = []
        for part in receipt.parts:
            if part.path.startswith(f"{REJECTED}/"):
                table = read_parquet(self.storage.open(self.uri(part.path)), ["rejection"])
                found += [(one["source_row"], one["sample"]) for one in table.column("rejection").to_pylist()]
        return found


def _check_version(run: Run, output_uri: str) -> None:
    """Raises OtherOutputVersion for rows that are laid out, or were drawn, in another way than this code's."""
    there = run.fields.get("output version")
    if there != OUTPUT_VERSION:
        raise OtherOutputVersion(
            f"{output_uri} was written in output version {there} (by unipic {run.code_version}), "
            f"this unipic reads and writes version {OUTPUT_VERSION}",
            remedy="Use the unipic that wrote it, or run the job into another output folder.",
        )
