"""`run.json` and the epochs: whose output a folder is, and which manifest files its rows come from.

The identity (`run.json`) is written once. What may change is an epoch: a numbered file, written once, of which the last
one counts. A redo or a prune opens an epoch in which earlier commits of those rows no longer count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from unipic.pipeline.code_version import code_version
from unipic.pipeline.job import Job
from unipic.pipeline.lineage import sha256
from unipic.pipeline.manifests.columns import bindings
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.changes import changed, digests_of, removed
from unipic.pipeline.output.packs import Pack, PackIndex
from unipic.pipeline.records import OUTPUT_VERSION, ManifestFile, Revision, UnitId
from unipic.pipeline.sealed import build, digest, sealed, unsealed
from unipic.pipeline.storage.storage import Storage

LAYOUT = 3
"""Of the output folder; raised when another version could not read or resume it."""

MOST_ROWS = 2**40
"""Of a manifest file: a damaged record must not make a table of units that no memory holds."""

Action = Literal["claim", "extend", "redo", "prune", "repair", "compact"]


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
class Identity:
    """`run.json`: whose output this is. Deterministic, so that two runs of one job write the same."""

    name: str
    task: str
    fields: dict[str, Any]
    fingerprint: str
    rows_per_unit: int
    job: dict[str, Any]
    code_version: str
    layout: int = LAYOUT

    def to_json(self) -> bytes:
        return sealed(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Identity:
        """Raises ValueError, saying what is wrong."""
        value = unsealed(data)
        layout = value.get("layout")
        if layout != LAYOUT:
            raise ValueError(f"it is of layout {layout}, this version reads layout {LAYOUT}")
        identity = build(cls, value)
        if identity.fingerprint != digest(identity.fields):
            raise ValueError("its fingerprint is not that of its fields")
        params = identity.fields.get("params")
        if not isinstance(params, dict):
            raise ValueError("its fields name no params")
        samples = params.get("samples_per_row", 1)
        if type(samples) is not int or samples < 1 or identity.rows_per_unit < 1:
            raise ValueError("its samples_per_row and rows_per_unit must be at least 1")
        return identity

    @classmethod
    def of(cls, job: Job, checkpoint_digest: str) -> Identity:
        fields = fingerprint_fields(job, checkpoint_digest)
        return cls(
            name=job.name,
            task=job.task,
            fields=fields,
            fingerprint=digest(fields),
            rows_per_unit=job.rows_per_unit,
            job=job.model_dump(mode="json"),
            code_version=code_version(),
        )


@dataclass(frozen=True)
class Epoch:
    """The manifest as an output knows it, from this epoch on.

    Attributes:
        number: 1 for the first, then one more each.
        action: why it was opened.
        fingerprint: of the output it belongs to.
        files: every manifest file whose rows this output has or will have.
        code_version: of the runs that write from here on.
        digests: name → SHA-256 of listings of images, and of local manifest files, for all but the largest: a time
            alone says little of what is in them.
        since: file key or unit id → the epoch from which commits of its rows count, where that is not 1. An earlier
            epoch's writer that wakes late commits nothing that counts.
        left_out: notes on files of the manifest's folder that gave no rows when this epoch was opened.
        packs: large data files that have the rows of many units each.
    """

    number: int
    action: str
    fingerprint: str
    files: tuple[ManifestFile, ...]
    code_version: str
    digests: Mapping[str, str] = field(default_factory=dict)
    since: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    packs: tuple[Pack, ...] = ()

    def to_json(self) -> bytes:
        return sealed(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Epoch:
        """Raises ValueError, saying what is wrong."""
        epoch = build(
            cls,
            unsealed(data),
            files=lambda files: tuple(build(ManifestFile, one) for one in files),
            left_out=tuple,
            packs=lambda packs: tuple(Pack.from_json(one) for one in packs),
        )
        for one in epoch.files:
            one.name.encode()  # a name that is no text makes no key; UnicodeEncodeError is a ValueError
            if not 0 <= one.rows <= MOST_ROWS:
                raise ValueError(f"the manifest file {one.name!r:.200} cannot have {one.rows} rows")
        return epoch

    def same_content(self, other: Epoch) -> bool:
        ours, theirs = ((one.files, one.code_version, one.digests, one.since, one.packs) for one in (self, other))
        return ours == theirs


@dataclass(frozen=True)
class Run:
    """An output's identity and its current epoch."""

    identity: Identity
    epoch: Epoch

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def task(self) -> str:
        return self.identity.task

    @property
    def fields(self) -> dict[str, Any]:
        return self.identity.fields

    @property
    def rows_per_unit(self) -> int:
        return self.identity.rows_per_unit

    @property
    def samples_per_row(self) -> int:
        return int(self.fields["params"].get("samples_per_row", 1))

    @property
    def job(self) -> dict[str, Any]:
        return self.identity.job

    @property
    def code_version(self) -> str:
        return self.identity.code_version

    @property
    def files(self) -> tuple[ManifestFile, ...]:
        return self.epoch.files

    @property
    def digests(self) -> Mapping[str, str]:
        return self.epoch.digests

    def since(self, unit: UnitId) -> int:
        """The epoch from which commits of `unit` count."""
        table = self.epoch.since
        return max(table.get(unit.file_key, 1), table.get(unit, 1)) if table else 1

    @cached_property
    def packed(self) -> PackIndex:
        """The packs that count."""
        return PackIndex(self.epoch.packs)

    def is_packed(self, unit: UnitId, revision: Revision) -> bool:
        """Whether a pack holds this commit, or one after it."""
        packed = self.packed.number(unit)
        return packed is not None and revision <= Revision(self.since(unit), packed)

    def with_files(self, files: tuple[ManifestFile, ...]) -> Run:
        return replace(self, epoch=replace(self.epoch, files=files))


def is_listing(file: ManifestFile) -> bool:
    """Whether a manifest file is our own listing of a folder of images: it has no version but its digest."""
    return file.format == "parquet" and not file.version


def next_epoch(run: Run, manifest: Manifest, storage: Storage, *, redone: Sequence[str] = ()) -> Epoch:
    """The epoch after `run`'s with `manifest`'s files beside those that are gone.

    Args:
        redone: file keys and unit ids whose commits so far no longer count.
    """
    gone = removed(run.files, manifest.files)
    altered = {one.name for one in changed(run.files, manifest.files)}
    known = {name: found for name, found in run.digests.items() if name not in altered}
    known |= {one.name: sha256(one.listing) for one in manifest.replaced}
    if manifest.listing is not None:
        known |= {
            one.name: sha256(manifest.listing) for one in manifest.files if is_listing(one) and one.name not in known
        }
    number = run.epoch.number + 1
    action: Action = "claim" if number == 1 else "redo" if redone else "extend"
    return Epoch(
        number=number,
        action=action,
        fingerprint=run.identity.fingerprint,
        files=tuple(sorted([*manifest.files, *gone], key=lambda one: one.name)),
        code_version=code_version(),
        digests=digests_of(known, manifest.files, storage),
        since={**run.epoch.since, **dict.fromkeys(redone, number)},
        left_out=manifest.left_out,
        packs=run.epoch.packs,
    )


def without(run: Run, files: Sequence[ManifestFile]) -> Epoch:
    """The epoch after `run`'s in which these files' rows no longer count."""
    kept = tuple(one for one in run.files if one not in files)
    names = {one.name for one in kept}
    number = run.epoch.number + 1
    return replace(
        run.epoch,
        number=number,
        action="prune",
        files=kept,
        code_version=code_version(),
        digests={name: one for name, one in run.digests.items() if name in names},
        since={**run.epoch.since, **dict.fromkeys((one.key for one in files), number)},
    )


def redoing(run: Run, units: Sequence[str]) -> Epoch:
    """The epoch after `run`'s in which the commits so far of these units no longer count, to repair them."""
    number = run.epoch.number + 1
    since = {**run.epoch.since, **dict.fromkeys(units, number)}
    return replace(run.epoch, number=number, action="repair", code_version=code_version(), since=since)


def with_packs(run: Run, packs: Sequence[Pack]) -> Epoch:
    """The epoch after `run`'s in which these are the packs; the rows that count stay the same."""
    return replace(run.epoch, number=run.epoch.number + 1, action="compact", packs=tuple(packs))
