"""What an output folder knows of itself: whose it is (`run.json`) and what is done (`receipts/`).

<output>/_unipic/run.json               whose output this is: fingerprint, resolved job, manifest files
<output>/_unipic/receipts/<unit>.json   one a unit, written last
<output>/_unipic/listings/*.parquet     what a folder of pictures held when it was first seen
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

from unipic.pipeline.errors import ObjectMissing, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.image_folder import Replaced
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.run_record import (
    Changed,
    Run,
    altered,
    changed,
    claim,
    differences,
    fingerprint_fields,
    refuse,
    settled,
)
from unipic.pipeline.records import ManifestFile, Receipt, Unit
from unipic.pipeline.storage.parquet import read_parquet
from unipic.pipeline.storage.paths import join
from unipic.pipeline.storage.storage import Storage

META = "_unipic"
RUN = f"{META}/run.json"
RECEIPTS = f"{META}/receipts"
LISTINGS = f"{META}/listings"
_UNIT = re.compile(r"([0-9a-f]{16})-(\d{10})(?!\d)")  # file key and row: of a unit, a part, a picture
READERS = 16  # receipts read at once: each is one small round trip


def receipt_path(unit_id: str) -> str:
    return f"{RECEIPTS}/{unit_id}.json"


def part_name(unit_id: str, retry: int = 0) -> str:
    """Says which unit it is, and which try at its rejected rows."""
    return f"part-{unit_id}{f'.retry{retry}' if retry else ''}.parquet"


def part_of(path: str) -> tuple[str, int]:
    """`part_name` backwards: (unit id, try at its rejected rows). A stranger's name gives a unit that there is not."""
    unit, _, retry = path.rsplit("/", 1)[-1].removeprefix("part-").removesuffix(".parquet").partition(".retry")
    return unit, int(retry) if retry.isdecimal() else 0


def _unit_of(key: str, row: int, rows_per_unit: int) -> str:
    """Id of the unit that a row of the manifest file with this key is in."""
    return f"{key}-{row - row % rows_per_unit:010d}"


class Ledger:
    """The books of one output folder."""

    def __init__(self, output_uri: str, storage: Storage) -> None:
        self.output_uri = output_uri
        self.storage = storage
        self.begun: frozenset[str] = frozenset()  # units with parts of a try that has no receipt, as `sweep` saw them

    def run(self) -> Run | None:
        """What `run.json` says, or None in a folder that no run has begun.

        Raises:
            OutputError: the file is there and is not one of ours.
        """
        try:
            data = self.storage.read(join(self.output_uri, RUN))
        except ObjectMissing:
            return None
        try:
            return Run.from_json(data)
        except (ValueError, TypeError, KeyError) as error:
            how = f"it lacks {error}" if isinstance(error, KeyError) else "it is not the JSON that was written"
            raise OutputError(
                f"{join(self.output_uri, RUN)} is damaged: {how}",
                remedy="Restore it, or choose another output folder.",
            ) from error

    def recorded(self) -> Run:
        """What `run.json` says.

        Raises:
            OutputError: no run has begun here.
        """
        run = self.run()
        if run is None:
            remedy = "Give the output.uri of a job that was run."
            raise OutputError(f"{self.output_uri} holds no output of ours", remedy=remedy)
        return run

    def listings(self) -> list[str]:
        """URIs of the picture listings kept so far."""
        listed = self.storage.list(join(self.output_uri, LISTINGS), suffix=".parquet")
        # Spelled as when they were stored, since rows name their source file: a list leaves "file://" out.
        return [self._listing_uri(one.uri.rpartition("/")[2].removesuffix(".parquet")) for one in listed]

    def discover(self, job: Job) -> Manifest:
        """The job's manifest as it is now, without this output; pictures listed by earlier runs keep their rows."""
        return discover(job.input, self.storage, listings=self.listings(), outside=self.output_uri)

    def check_owner(self, job: Job, checkpoint_digest: str) -> Run | None:
        """Refuse another job's folder.

        Raises:
            OutputError: naming every field that differs.
        """
        there = self.run()
        if there is None:
            return None
        ours = fingerprint_fields(job, checkpoint_digest)
        differ = differences(there.fields, ours)
        if differ:
            raise OutputError(
                f"{self.output_uri} holds the output of job {there.name!r}, which differs from this one in "
                + "; ".join(differ),
                remedy="Choose another output.uri, or give the job the settings it had.",
            )
        return there

    def open(
        self, job: Job, manifest: Manifest, checkpoint_digest: str, *, redo_changed: bool = False
    ) -> tuple[Run, Manifest]:
        """Claim the folder for `job`, or take up where it was left.

        Args:
            redo_changed: forget the units of manifest files and pictures that changed, instead of refusing.

        Returns:
            The run as recorded, and the manifest with its new listing, if any, in place.

        Raises:
            OutputError: the folder is another job's.
            ManifestError: a manifest file, or a picture that was answered, changed under its name.
        """
        stored = self.check_owner(job, checkpoint_digest)
        there = settled(stored, manifest.files, self.storage) if stored else None
        fixed = there.rows_per_unit if there else job.rows_per_unit
        keys = {one.name: one.key for one in manifest.files}
        replaced = [one for one in manifest.replaced if one.name in keys]
        if there is not None and not redo_changed:
            self.check_unchanged(there, manifest, job)
        self.forget(changed(there.files, manifest.files) if there else [])
        if redo_changed and replaced:
            units = {_unit_of(keys[one.name], row, fixed) for one in replaced for row in one.rows}
            self._forget(lambda key, row: _unit_of(key, row, fixed) in units)
        for one in replaced:
            self.storage.write(self._listing_uri(one.name), one.listing)
        manifest = self._store_listing(manifest)
        run = claim(there, job, manifest, checkpoint_digest, storage=self.storage, rows_per_unit=fixed)
        if stored != run:
            self.storage.write(join(self.output_uri, RUN), run.to_json())
        return run, manifest

    def check_unchanged(self, there: Run, manifest: Manifest, job: Job) -> None:
        """Raises ManifestError naming manifest files and answered pictures that changed since `there` was recorded."""
        keys = {one.name: one.key for one in manifest.files}
        found = altered(settled(there, manifest.files, self.storage), manifest)
        for one in manifest.replaced:
            if one.name in keys:
                found += self._answered(one, keys[one.name], there.rows_per_unit, job)
        if found:
            refuse(found)

    def forget(self, files: Sequence[ManifestFile]) -> int:
        """Take back every unit of `files`: receipts first, so that a death in between leaves work, not half a unit.

        Returns:
            How many units were forgotten.
        """
        keys = {one.key for one in files}
        return self._forget(lambda key, _: key in keys) if keys else 0

    def _forget(self, has: Callable[[str, int], bool]) -> int:
        """Take back the units, each given by its file's key and a row of it, that `has` says."""

        def is_meant(name: str) -> bool:
            found = _UNIT.match(name)
            return found is not None and has(found[1], int(found[2]))

        forgotten = [unit for unit in self.done() if is_meant(unit)]
        for unit in forgotten:
            self.storage.delete(join(self.output_uri, receipt_path(unit)))
        for folder, prefix in (("data", "part-"), ("rejected", "part-"), ("images", "")):
            for one in self.storage.list(join(self.output_uri, folder)):
                if is_meant(one.uri.rsplit("/", 1)[1].removeprefix(prefix)):
                    self.storage.delete(one.uri)
        return len(forgotten)

    def _answered(self, replaced: Replaced, key: str, rows_per_unit: int, job: Job) -> Iterator[Changed]:
        """Those of the replaced pictures that the output has an answer to.

        The others were not looked at yet, or rejected, and may have been mended since.
        """
        done = self.done()
        rejected: dict[str, Counter[int]] = {}
        for row, name, mend in zip(replaced.rows, replaced.images, replaced.touch_commands, strict=True):
            unit = _unit_of(key, row, rows_per_unit)
            if unit in done:
                if unit not in rejected:
                    rejected[unit] = Counter(at for at, _ in self._rejected(self.receipt(unit)))
                if rejected[unit][row] < job.samples_per_row:
                    yield Changed(name, "its modification time is another" if mend else "", mend)

    def retries(self, files: Sequence[ManifestFile]) -> Iterator[tuple[Receipt, Unit]]:
        """Every unit with rejected rows, as it stands and as the unit that tries just those rows again."""
        by_name = {one.name: one for one in files}
        for receipt in self.receipts():
            if receipt.rejected and receipt.file in by_name:
                rows = self._rejected(receipt)
                file = by_name[receipt.file]
                again = receipt.unit in self.begun
                yield receipt, Unit(file, receipt.first_row, receipt.rows, tuple(rows), receipt.retry + 1, again)

    def _rejected(self, receipt: Receipt) -> list[tuple[int, int]]:
        """(row, sample) of the unit's rejected rows."""
        found: list[tuple[int, int]] = []
        for part in receipt.parts:
            if part.path.startswith("rejected/"):
                table = read_parquet(self.storage.open(join(self.output_uri, part.path)), ["rejection"])
                found += [(one["source_row"], one["sample"]) for one in table.column("rejection").to_pylist()]
        return found

    def sweep(self, *, alone: bool = False) -> int:
        """Delete what earlier tries of a unit left and its receipt does not name; note in `begun` what is uncommitted.

        Args:
            alone: no other run is at work here, so that parts of a later try than the receipt's are nobody's.

        Returns:
            How many parts there were.
        """
        done = self.done()
        begun: set[str] = set()
        doubtful: dict[str, list[tuple[str, int]]] = {}
        for folder in ("rejected", "data"):
            for one in self.storage.list(join(self.output_uri, folder), suffix=".parquet"):
                path = f"{folder}/{one.uri.rsplit('/', 1)[1]}"
                unit, retry = part_of(path)
                if unit not in done:
                    begun.add(unit)
                elif folder == "rejected" or retry or unit in doubtful:
                    # The rest are first tries of units without rejected rows: nothing superseded those.
                    doubtful.setdefault(unit, []).append((path, retry))
        swept = 0
        for receipt in self.receipts(sorted(doubtful)):
            named = {part.path for part in receipt.parts}
            for path, retry in doubtful[receipt.unit]:
                if retry > receipt.retry and not alone:
                    begun.add(receipt.unit)
                elif path not in named:
                    self.storage.delete(join(self.output_uri, path))
                    swept += 1
        self.begun = frozenset(begun)
        return swept

    def _listing_uri(self, name: str) -> str:
        return join(self.output_uri, LISTINGS, f"{name}.parquet")

    def _store_listing(self, manifest: Manifest) -> Manifest:
        if manifest.listing is None:
            return manifest
        files = []
        for one in manifest.files:
            if not one.uri:
                one = replace(one, uri=self._listing_uri(one.name))
                self.storage.write(one.uri, manifest.listing)
            files.append(one)
        return replace(manifest, files=tuple(files), listing=None)

    def done(self) -> set[str]:
        """Ids of the units that have a receipt."""
        listed = self.storage.list(join(self.output_uri, RECEIPTS), suffix=".json")
        return {one.uri.rsplit("/", 1)[-1].removesuffix(".json") for one in listed}

    def receipts(self, units: Sequence[str] | None = None) -> Iterator[Receipt]:
        """Every receipt (or those of `units`), a few read at a time: memory does not grow with their number.

        Raises:
            OutputError: a receipt is damaged.
        """
        names = iter(sorted(self.done()) if units is None else units)
        with ThreadPoolExecutor(READERS) as pool:
            while chunk := list(islice(names, READERS * 16)):
                yield from pool.map(self.receipt, chunk)

    def receipt(self, unit_id: str) -> Receipt:
        """The receipt of one unit.

        Raises:
            OutputError: it is damaged.
            ObjectMissing: there is none.
        """
        uri = join(self.output_uri, receipt_path(unit_id))
        try:
            return Receipt.from_json(self.storage.read(uri))
        except (ValueError, TypeError, KeyError) as error:
            raise OutputError(
                f"the receipt {uri} is damaged", remedy="Delete it to have its unit done again."
            ) from error
