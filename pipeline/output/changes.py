"""What differs between a recorded output and today's job and manifest: settings, files gone, files changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from unipic.pipeline.errors import ManifestError, ObjectMissing, StorageError
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.storage.errors import TooManyBytes
from unipic.pipeline.storage.file_times import local_time, touch_command
from unipic.pipeline.storage.paths import is_remote
from unipic.pipeline.storage.storage import Storage

LARGEST_DIGESTED = 64 * 2**20
DIGESTED_BYTES = 2**30  # in all, for each run: a second's work


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


def removed(recorded: Sequence[ManifestFile], now: Sequence[ManifestFile]) -> list[ManifestFile]:
    """Files that an earlier run recorded and the manifest no longer has."""
    names = {one.name for one in now}
    return [one for one in recorded if one.name not in names]


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


def settled(
    before: Sequence[ManifestFile], digests: Mapping[str, str], now: Sequence[ManifestFile], storage: Storage
) -> tuple[ManifestFile, ...]:
    """`before`, in which files with another time now, and all the same bytes, have that time.

    Args:
        digests: name → SHA-256, as far as it was recorded.
    """
    by_name = {one.name: one for one in now}
    return tuple(_settled(one, by_name.get(one.name), digests.get(one.name), storage) for one in before)


def settled_in_place(
    before: Sequence[ManifestFile], digests: Mapping[str, str], storage: Storage
) -> tuple[ManifestFile, ...]:
    """`settled`, where the manifest was not looked for: its files are where they were."""
    now = []
    for one in before:
        if one.name in digests:
            with suppress(StorageError):  # reading its rows will fail, with the reason
                now.append(replace(one, version=storage.info(one.uri).version))
    return settled(before, digests, now, storage)


def _settled(before: ManifestFile, now: ManifestFile | None, digest: str | None, storage: Storage) -> ManifestFile:
    if now is None or digest is None or before.version == now.version:
        return before
    alike = (before.rows, before.source_bytes) == (now.rows, now.source_bytes)
    return replace(before, version=now.version) if alike and _sha256(now, storage) == digest else before


def digests_of(known: Mapping[str, str], files: Sequence[ManifestFile], storage: Storage) -> dict[str, str]:
    """`known`, and the SHA-256 of those other local files that are small enough to be read for it."""
    out = dict(known)
    left = DIGESTED_BYTES
    for file in files:
        if (
            file.name in out
            or not file.version
            or is_remote(file.uri)
            or file.source_bytes > min(left, LARGEST_DIGESTED)
        ):
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


def altered(before: Sequence[ManifestFile], digests: Mapping[str, str], now: Sequence[ManifestFile]) -> list[Changed]:
    """The files of `before` (as `settled` gave them) that changed, with what is known of each change."""
    by_name = {one.name: one for one in before}
    return [_how_changed(by_name[one.name], one, read=one.name in digests) for one in changed(before, now)]


def _how_changed(before: ManifestFile, now: ManifestFile, *, read: bool) -> Changed:
    facts = [(one.rows, one.source_bytes) for one in (before, now)]
    if facts[0] != facts[1]:
        (rows, size), (rows_now, size_now) = facts
        said = f"it had {rows:,} rows in {size:,} bytes, now it has {rows_now:,} in {size_now:,}"
        return Changed(now.name, said)
    if read:
        return Changed(now.name, "it has other bytes of the same size")
    if is_remote(now.uri) or is_remote(before.uri):
        return Changed(now.name, f"its version was {before.version}, now it is {now.version}")
    said = f"its modification time was {local_time(before.version)}, now it is {local_time(now.version)}"
    return Changed(now.name, said, touch_command(now.uri, before.version))


@dataclass(frozen=True)
class Changed:
    """A manifest file or image that differs from when its output was begun.

    Attributes:
        how: what is known of the difference; "" for nothing.
        undo: the command that makes it the one it was, if nothing but its time differs; else "".
    """

    name: str
    how: str = ""
    undo: str = ""


def refuse(altered: Sequence[Changed]) -> None:
    """Raises ManifestError naming the first of these files or pictures."""
    shown = ", ".join(one.name for one in altered[:5])
    more = f" and {len(altered) - 5} more" if len(altered) > 5 else ""
    first = altered[0]
    how = f": {first.how}" if len(altered) == 1 and first.how else ""
    undo = f" If the bytes are the same: {first.undo}" if len(altered) == 1 and first.undo else ""
    raise ManifestError(
        f"{shown}{more} changed since this output was begun{how}",
        remedy=f"Give the new content a new file name, or do its units again with --changed redo.{undo}",
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:77]}…"
