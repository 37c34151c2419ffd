"""`run.json`: whose output a folder is, as a value, and how two of them, or it and the manifest of today, differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import ManifestError
from pipeline.job import Job
from pipeline.manifest import Manifest, bindings
from pipeline.records import OUTPUT_VERSION, ManifestFile, digest


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
        if not isinstance(value, dict):
            raise ValueError("it holds no JSON object")
        value.pop("fingerprint")
        return cls(**{**value, "files": tuple(ManifestFile(**one) for one in value["files"])})


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


def changed(before: Sequence[ManifestFile], now: Sequence[ManifestFile]) -> list[ManifestFile]:
    """Files that changed under their name. A listing has no version: it is ours, and says itself what changed."""
    known = {one.name: one for one in before}
    return [one for one in now if one.name in known and _differ(known[one.name], one)]


def _differ(before: ManifestFile, now: ManifestFile) -> bool:
    versions = {before.version, now.version}
    return before.rows != now.rows or ("" not in versions and len(versions) > 1)


def refuse(names: Sequence[str]) -> None:
    """Raises ManifestError naming the first of these files or pictures."""
    shown = ", ".join(names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    raise ManifestError(
        f"{shown}{more} changed since this output was begun",
        remedy="Give the new content a new file name, or do its units again with --changed redo.",
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:77]}…"
