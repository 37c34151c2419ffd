"""Where a checkpoint's files are: described from its small files, brought near a replica once per machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from unipic.pipeline.errors import CheckpointError, ObjectMissing
from unipic.pipeline.places import BUILTIN_CHECKPOINT
from unipic.pipeline.storage.paths import join
from unipic.pipeline.storage.storage import Storage

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class CheckpointInfo:
    """What `config.json` and `digests.json` say.

    Attributes:
        digest: of the whole checkpoint.
        files: name → SHA-256.
        bytes: of all files together.
    """

    uri: str
    digest: str
    files: dict[str, str]
    bytes: int


def located(uri: str) -> str:
    """Where this machine finds the checkpoint that a job names: the built-in one lies in the installed package."""
    return str(resources.files("unipic.model.tiny").joinpath("checkpoint")) if uri == BUILTIN_CHECKPOINT else uri


def describe(uri: str, storage: Storage) -> CheckpointInfo:
    """Read a checkpoint's small files; no weights are touched.

    Raises:
        CheckpointError: nothing is there, it is of another layout, or a file is missing.
    """
    uri = located(uri)
    try:
        value = json.loads(storage.read(join(uri, "digests.json")))
        files = dict(value["files"])
        total = sum(storage.info(join(uri, name)).size_bytes for name in files)
        return CheckpointInfo(uri, str(value["checkpoint"]), files, total)
    except ObjectMissing as error:
        raise CheckpointError(
            f"{uri} is not a checkpoint of ours: {error.message}",
            remedy="`unipic convert SRC DST` makes one of the published weights, `unipic init-tiny DST` a small one.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{join(uri, 'digests.json')} is damaged: {error}", remedy="Convert it again.") from error


def verify(info: CheckpointInfo, storage: Storage, on_bytes: Callable[[int], None] | None = None) -> None:
    """Hash every file.

    Raises:
        CheckpointError: naming the file that does not match its digest.
    """
    for name, expected in info.files.items():
        _copy(join(info.uri, name), None, expected, storage, on_bytes)


def local_copy(uri: str, digest: str, storage: Storage) -> Path:
    """A folder on this machine that holds the checkpoint; a remote one is fetched and checked once per machine.

    Raises:
        CheckpointError: a file does not match its digest, or the checkpoint is not the one the run was planned with.
    """
    uri = located(uri)
    info = describe(uri, storage)
    if info.digest != digest:
        raise CheckpointError(f"{uri} changed while the job ran: its digest was {digest[:12]}, now {info.digest[:12]}")
    if "://" not in uri:
        return Path(uri)
    cache = Path(os.environ.get("UNIPIC_CACHE") or Path.home() / ".cache" / "unipic") / "checkpoints"
    cache.mkdir(parents=True, exist_ok=True)
    final = cache / digest
    with (cache / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # many replicas of one machine start together; one fetches
        if not final.exists():
            partial = Path(tempfile.mkdtemp(dir=cache, prefix=f"{digest[:12]}-"))
            try:
                for name in [*info.files, "digests.json"]:
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    _copy(join(uri, name), partial / name, info.files.get(name), storage, None)
                partial.rename(final)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return final


def _copy(
    uri: str, to: Path | None, expected: str | None, storage: Storage, on_bytes: Callable[[int], None] | None
) -> None:
    """Stream one file, to disk where `to` is given, and hold it against its SHA-256."""
    seen = hashlib.sha256()
    with storage.open(uri) as source, (to or Path(os.devnull)).open("wb") as sink:
        while chunk := source.read(CHUNK_BYTES):
            seen.update(chunk)
            if to is not None:
                sink.write(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    if expected is not None and seen.hexdigest() != expected:
        raise CheckpointError(
            f"{uri} does not match its digest in digests.json",
            remedy="It was altered or half copied: convert or copy it again.",
        )
