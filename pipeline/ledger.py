"""What an output folder knows of itself: whose it is (`run.json`) and what is done (`receipts/`).

<output>/_unipic/run.json               whose output this is: fingerprint, resolved job, manifest files
<output>/_unipic/receipts/<unit>.json   one a unit, written last
<output>/_unipic/listings/*.parquet     what a folder of pictures held when it was first seen
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from pipeline.context import code_version
from pipeline.errors import ManifestError, ObjectMissing, OutputError
from pipeline.job import Job
from pipeline.manifest import Manifest, bindings, discover
from pipeline.parquet_file import read_parquet
from pipeline.records import OUTPUT_VERSION, ManifestFile, Receipt, Unit, digest
from pipeline.storage import Storage, join

META = "_unipic"
RUN = f"{META}/run.json"
RECEIPTS = f"{META}/receipts"
LISTINGS = f"{META}/listings"
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


def fingerprint_fields(job: Job, checkpoint_digest: str) -> dict[str, Any]:
    """All that changes what the outputs hold. Two jobs with equal fields may share an output folder."""
    return {
        "task": job.task,
        "params": job.params.model_dump(mode="json"),
        "columns": bindings(job),
        "keep": list(job.input.keep),
        "image_root": job.input.image_root,
        "limits of pictures": [job.input.max_image_mpx, job.input.max_image_mb],
        "checkpoint": checkpoint_digest,
        "dtype": job.model.dtype,
        "images": job.output.images,
        "output version": OUTPUT_VERSION,
    }


@dataclass(frozen=True)
class Run:
    """`run.json`: deterministic, so that two runs of one job write the same."""

    name: str
    task: str
    fields: dict[str, Any]
    rows_per_unit: int
    job: dict[str, Any]
    code_version: str
    files: tuple[ManifestFile, ...]

    @property
    def fingerprint(self) -> str:
        return digest(self.fields)

    def to_json(self) -> bytes:
        value = {"fingerprint": self.fingerprint, **asdict(self)}
        return json.dumps(value, sort_keys=True, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Run:
        value = json.loads(data)
        value.pop("fingerprint")
        return cls(**{**value, "files": tuple(ManifestFile(**one) for one in value["files"])})


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
            raise OutputError(
                f"{join(self.output_uri, RUN)} is damaged: {error}",
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
        return [one.uri for one in self.storage.list(join(self.output_uri, LISTINGS), suffix=".parquet")]

    def discover(self, job: Job) -> Manifest:
        """The job's manifest as it is now; pictures listed by earlier runs keep their rows."""
        return discover(job.input, self.storage, listings=self.listings())

    def check_owner(self, job: Job, checkpoint_digest: str) -> Run | None:
        """Refuse another job's folder.

        Raises:
            OutputError: naming every field that differs.
        """
        there = self.run()
        if there is None:
            return None
        ours = fingerprint_fields(job, checkpoint_digest)
        differ = _differences(there.fields, ours)
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
            redo_changed: forget the units of manifest files that changed under their name, instead of refusing.

        Returns:
            The run as recorded, and the manifest with its new listing, if any, in place.

        Raises:
            OutputError: the folder is another job's.
            ManifestError: a manifest file changed under its name.
        """
        there = self.check_owner(job, checkpoint_digest)
        manifest = self._store_listing(manifest)
        fixed = there.rows_per_unit if there else job.rows_per_unit
        changed = _changed(there.files, manifest.files) if there else []
        if changed and not redo_changed:
            _refuse(changed)
        self.forget(changed)
        gone = removed(there, manifest) if there else []
        run = Run(
            name=there.name if there else job.name,
            task=job.task,
            fields=fingerprint_fields(job, checkpoint_digest),
            rows_per_unit=fixed,
            job=there.job if there else job.model_dump(mode="json"),
            code_version=there.code_version if there else code_version(),
            files=tuple(sorted([*manifest.files, *gone], key=lambda one: one.name)),
        )
        if there != run:
            self.storage.write(join(self.output_uri, RUN), run.to_json())
        return run, manifest

    def forget(self, files: Sequence[ManifestFile]) -> int:
        """Take back every unit of `files`: receipts first, so that a death in between leaves work, not half a unit.

        Returns:
            How many units were forgotten.
        """
        keys = {one.key for one in files}
        if not keys:
            return 0
        forgotten = [unit for unit in self.done() if unit.split("-", 1)[0] in keys]
        for unit in forgotten:
            self.storage.delete(join(self.output_uri, receipt_path(unit)))
        for folder, prefix in (("data", "part-"), ("rejected", "part-"), ("images", "")):
            for one in self.storage.list(join(self.output_uri, folder)):
                if one.uri.rsplit("/", 1)[1].removeprefix(prefix).split("-", 1)[0] in keys:
                    self.storage.delete(one.uri)
        return len(forgotten)

    def prune(self, manifest: Manifest) -> list[ManifestFile]:
        """Remove the rows of manifest files that are no longer there.

        Returns:
            The files whose rows went.
        """
        run = self.recorded()
        gone = removed(run, manifest)
        if gone:
            self.forget(gone)
            kept = tuple(one for one in run.files if one not in gone)
            self.storage.write(join(self.output_uri, RUN), replace(run, files=kept).to_json())
        return gone

    def retries(self, files: Sequence[ManifestFile]) -> Iterator[tuple[Receipt, Unit]]:
        """Every unit with rejected rows, as it stands and as the unit that tries just those rows again."""
        by_name = {one.name: one for one in files}
        for receipt in self.receipts():
            if receipt.rejected and receipt.file in by_name:
                part = next(part for part in receipt.parts if part.path.startswith("rejected/"))
                table = read_parquet(self.storage.open(join(self.output_uri, part.path)), ["rejection"])
                rows = [(one["source_row"], one["sample"]) for one in table.column("rejection").to_pylist()]
                file = by_name[receipt.file]
                again = receipt.unit in self.begun
                yield receipt, Unit(file, receipt.first_row, receipt.rows, tuple(rows), receipt.retry + 1, again)

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

    def _store_listing(self, manifest: Manifest) -> Manifest:
        if manifest.listing is None:
            return manifest
        files = []
        for one in manifest.files:
            if not one.uri:
                one = replace(one, uri=join(self.output_uri, LISTINGS, f"{one.name}.parquet"))
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
                f"the receipt {uri} is damaged: {error}", remedy="Delete it to have its unit done again."
            ) from error


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _differences(there: dict[str, Any], ours: dict[str, Any], prefix: str = "") -> list[str]:
    """`name: old there, new now` for every leaf that differs."""
    out: list[str] = []
    for name in sorted({*there, *ours}):
        old, new = there.get(name), ours.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            out += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            out.append(f"{prefix}{name}: {_short(old)} there, {_short(new)} now")
    return out


def removed(run: Run, manifest: Manifest) -> list[ManifestFile]:
    """Files that an earlier run recorded and the manifest no longer has."""
    names = {one.name for one in manifest.files}
    return [one for one in run.files if one.name not in names]


def _changed(before: Sequence[ManifestFile], now: Sequence[ManifestFile]) -> list[ManifestFile]:
    known = {one.name: (one.version, one.rows) for one in before}
    return [one for one in now if known.get(one.name, (one.version, one.rows)) != (one.version, one.rows)]


def _refuse(changed: Sequence[ManifestFile]) -> None:
    names = ", ".join(one.name for one in changed[:5])
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    raise ManifestError(
        f"{names}{more} changed since this output was begun",
        remedy="Give the new content a new file name, or do its units again with --changed redo.",
    )
