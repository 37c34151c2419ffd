"""`run.json`: whose output a folder is, as a value, and how two of them, or it and the manifest of today, differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unipic.pipeline.context import code_version
from unipic.pipeline.errors import ManifestError, ObjectMissing, StorageError
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.columns import bindings
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.records import OUTPUT_VERSION, ManifestFile, digest
from unipic.pipeline.storage.errors import TooManyBytes
from unipic.pipeline.storage.local import local_time, touch_command
from unipic.pipeline.storage.paths import is_s3
from unipic.pipeline.storage.storage import Storage

LARGEST_DIGESTED = 64 * 2**20
DIGESTED_BYTES = 2**30  # in all, for each run: a second's work


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
    digests: dict[str, str] = field(default_factory=dict)
    """Name → SHA-256 of local manifest files, for all but the largest: a time alone says little of what is in them."""

    @property
    def fingerprint(self) -> str:
        return digest(self.fields)

    def to_json(self) -> bytes:
        value = {"fingerprint": self.fingerprint, **asdict(self)}
        return json.dumps(value, sort_keys=True, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Run:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("it holds no JSON object")
        value.pop("fingerprint")
        return cls(**{**value, "files": tuple(ManifestFile(**one) for one in value["files"])})


def claim(
    there: Run | None, job: Job, manifest: Manifest, checkpoint_digest: str, *, storage: Storage, rows_per_unit: int
) -> Run:
    """What is to be recorded of `job` over `manifest`, in a folder of its own or one that has a record already."""
    gone = removed(there, manifest) if there else []
    altered = {one.name for one in changed(there.files, manifest.files)} if there else set()
    known = {name: found for name, found in there.digests.items() if name not in altered} if there else {}
    return Run(
        name=there.name if there else job.name,
        task=job.task,
        fields=fingerprint_fields(job, checkpoint_digest),
        rows_per_unit=rows_per_unit,
        job=there.job if there else job.model_dump(mode="json"),
        code_version=there.code_version if there else code_version(),
        files=tuple(sorted([*manifest.files, *gone], key=lambda one: one.name)),
        digests=digests(known, manifest.files, storage),
    )


def without(run: Run, files: Sequence[ManifestFile]) -> Run:
    """`run` that never had these files."""
    kept = tuple(one for one in run.files if one not in files)
    names = {one.name for one in kept}
    return replace(run, files=kept, digests={name: one for name, one in run.digests.items() if name in names})


def differences(there: dict[str, Any], ours: dict[str, Any], prefix: str = "") -> list[str]:
    """`name: old there, new now` for every leaf that differs."""
    out: list[str] = []
    for name in sorted({*there, *ours}):
        old, new = there.get(name), ours.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            out += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            out.append(f"{prefix}{name}: {_short(old)} there, {_short(new)} now")
    return out


def removed(run: Run, manifest: Manifest) -> list[ManifestFile]:
    """Files that an earlier run recorded and the manifest no longer has."""
    names = {one.name for one in manifest.files}
    return [one for one in run.files if one.name not in names]


def rows_stay(gone: Sequence[ManifestFile]) -> str:
    """What a run or a plan says of manifest files that were removed."""
    named = ", ".join(one.name for one in gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
    return f"gone from the manifest: {named}; what was made of them stays until `unipic prune`"


def changed(before: Sequence[ManifestFile], now: Sequence[ManifestFile]) -> list[ManifestFile]:
    """Files that changed under their name. A listing has no version: it is ours, and says itself what changed."""
    known = {one.name: one for one in before}
    return [one for one in now if one.name in known and _differ(known[one.name], one)]


def _differ(before: ManifestFile, now: ManifestFile) -> bool:
    versions = {before.version, now.version}
    return before.rows != now.rows or ("" not in versions and len(versions) > 1)


def settled(run: Run, now: Sequence[ManifestFile], storage: Storage) -> Run:
    """`run`, in which files that have another time now, and all the same bytes, have that time."""
    by_name = {one.name: one for one in now}
    files = tuple(_settled(one, by_name.get(one.name), run.digests.get(one.name), storage) for one in run.files)
    return run if files == run.files else replace(run, files=files)


def as_found(run: Run, storage: Storage) -> Run:
    """`settled`, for whoever has not looked for the manifest: its files are where they were."""
    now = []
    for one in run.files:
        if one.name in run.digests:
            with suppress(StorageError):  # whoever reads its rows is told
                now.append(replace(one, version=storage.info(one.uri).version))
    return settled(run, now, storage)


def _settled(before: ManifestFile, now: ManifestFile | None, digest: str | None, storage: Storage) -> ManifestFile:
    if now is None or digest is None or before.version == now.version:
        return before
    alike = (before.rows, before.source_bytes) == (now.rows, now.source_bytes)
    return replace(before, version=now.version) if alike and _sha256(now, storage) == digest else before


def digests(known: Mapping[str, str], files: Sequence[ManifestFile], storage: Storage) -> dict[str, str]:
    """`known`, and the SHA-256 of those other local files that are small enough to be read for it."""
    out = dict(known)
    left = DIGESTED_BYTES
    for file in files:
        if file.name in out or not file.version or is_s3(file.uri) or file.source_bytes > min(left, LARGEST_DIGESTED):
            continue
        left -= file.source_bytes
        if (found := _sha256(file, storage)) is not None:
            out[file.name] = found
    return out


def _sha256(file: ManifestFile, storage: Storage) -> str | None:
    """Of the version that `file` says; None where that is no longer there."""
    try:
        found = hashlib.sha256(storage.read(file.uri, max_bytes=LARGEST_DIGESTED)).hexdigest()
        info = storage.info(file.uri)
    except (ObjectMissing, TooManyBytes):
        return None
    return found if (info.version, info.size_bytes) == (file.version, file.source_bytes) else None


def altered(run: Run, manifest: Manifest) -> list[Changed]:
    """What is to be said of the files that `changed` in a run that is `settled`."""
    before = {one.name: one for one in run.files}
    found = changed(run.files, manifest.files)
    return [_how_changed(before[one.name], one, read=one.name in run.digests) for one in found]


def _how_changed(before: ManifestFile, now: ManifestFile, *, read: bool) -> Changed:
    facts = [(one.rows, one.source_bytes) for one in (before, now)]
    if facts[0] != facts[1]:
        (rows, size), (rows_now, size_now) = facts
        said = f"it had {rows:,} rows in {size:,} bytes, now it has {rows_now:,} in {size_now:,}"
        return Changed(now.name, said)
    if read:
        return Changed(now.name, "it has other bytes of the same size")
    if is_s3(now.uri) or is_s3(before.uri):
        return Changed(now.name, f"its version was {before.version}, now it is {now.version}")
    said = f"its modification time was {local_time(before.version)}, now it is {local_time(now.version)}"
    return Changed(now.name, said, touch_command(now.uri, before.version))


@dataclass(frozen=True)
class Changed:
    """A manifest file or picture that is another than when its output was begun.

    Attributes:
        how: what is known of it; "" for nothing.
        mend: the command that makes it the one it was, if nothing but its time is another; else "".
    """

    name: str
    how: str = ""
    mend: str = ""


def refuse(altered: Sequence[Changed]) -> None:
    """Raises ManifestError naming the first of these files or pictures."""
    shown = ", ".join(one.name for one in altered[:5])
    more = f" and {len(altered) - 5} more" if len(altered) > 5 else ""
    first = altered[0]
    how = f": {first.how}" if len(altered) == 1 and first.how else ""
    mend = f" If the bytes are the same: {first.mend}" if len(altered) == 1 and first.mend else ""
    raise ManifestError(
        f"{shown}{more} changed since this output was begun{how}",
        remedy=f"Give the new content a new file name, or do its units again with --changed redo.{mend}",
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:77]}…"
