"""Where a checkpoint's files are: described from its small files, brought near a replica once per machine."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from unipic.pipeline.errors import CheckpointError, ObjectMissing, StorageFull
from unipic.pipeline.places import BUILTIN_CHECKPOINT
from unipic.pipeline.storage.errors import TooManyBytes, from_system_write
from unipic.pipeline.storage.paths import is_remote, join, local_path
from unipic.pipeline.storage.storage import Storage

CHUNK_BYTES = 8 << 20
SPARE_BYTES = 64 << 20  # what a disk keeps free beside a fetched checkpoint
REMEDY = "It was altered or half copied: convert or copy it again."
log = logging.getLogger("unipic.checkpoint")


@dataclass(frozen=True)
class CheckpointInfo:
    """What `digests.json` says, held against what is there.

    Attributes:
        digest: of the whole checkpoint, computed from those of its files.
        files: name → SHA-256. The names are those that a checkpoint may have, and no others.
        sizes: name → bytes, as stored.
        bytes: of all files together.
    """

    uri: str
    digest: str
    files: dict[str, str]
    sizes: dict[str, int]
    bytes: int


def located(uri: str) -> str:
    """Where this machine finds the checkpoint that a job names: the built-in one lies in the installed package."""
    return str(resources.files("unipic.model.tiny").joinpath("checkpoint")) if uri == BUILTIN_CHECKPOINT else uri


def describe(uri: str, storage: Storage) -> CheckpointInfo:
    """Read a checkpoint's small files; no weights are read.

    Raises:
        CheckpointError: nothing is there, it is of another layout, a file is missing or has another size.
    """
    from unipic.model.checkpoint import DIGESTS_FILE, MAX_DIGESTS_BYTES, CheckpointFault, check_size, parse_digests

    uri = located(uri)
    where = join(uri, DIGESTS_FILE)
    try:
        claimed = parse_digests(storage.read(where, max_bytes=MAX_DIGESTS_BYTES), where=where)
        sizes = {name: storage.info(join(uri, name)).size_bytes for name in claimed.files}
        for name, size_bytes in sizes.items():
            check_size(name, size_bytes, where=uri)
            if claimed.sizes.get(name, size_bytes) != size_bytes:
                raise CheckpointFault(
                    f"{join(uri, name)} does not match its digest in {DIGESTS_FILE}: it has {size_bytes:,} bytes, "
                    f"not {claimed.sizes[name]:,}"
                )
    except ObjectMissing as error:
        raise CheckpointError(
            f"{uri} is not a converted checkpoint: {error.message}",
            remedy="`unipic convert SRC DST` makes one of the published weights, `unipic init-tiny DST` a small one.",
        ) from error
    except (CheckpointFault, TooManyBytes) as error:
        raise CheckpointError(str(error), remedy=REMEDY) from error
    return CheckpointInfo(uri, claimed.checkpoint, claimed.files, sizes, sum(sizes.values()))


def read_file(info: CheckpointInfo, name: str, storage: Storage) -> bytes:
    """One small file of a checkpoint, its size bounded and its digest checked.

    Raises:
        CheckpointError: it does not match its digest.
    """
    data = storage.read(join(info.uri, name), max_bytes=info.sizes[name])
    if hashlib.sha256(data).hexdigest() != info.files[name]:
        raise CheckpointError(f"{join(info.uri, name)} does not match its digest in digests.json", remedy=REMEDY)
    return data


def verify(info: CheckpointInfo, storage: Storage, on_bytes: Callable[[int], None] | None = None) -> None:
    """Hash every file.

    Raises:
        CheckpointError: naming the file that does not match its digest.
    """
    for name in info.files:
        _copy(info, name, None, storage, on_bytes)


def local_copy(uri: str, digest: str, storage: Storage) -> Path:
    """A folder on this machine that holds the checkpoint; a remote one is fetched once per machine.

    The copy is hashed each time it is handed out: a damaged one is fetched again.

    Raises:
        CheckpointError: a file does not match its digest, or the checkpoint is not the one the run was planned with.
        StorageFull: the cache has no room for it.
    """
    info = describe(uri, storage)
    if info.digest != digest:
        raise CheckpointError(
            f"{info.uri} changed while the job ran: its digest was {digest[:12]}, now {info.digest[:12]}"
        )
    if not is_remote(info.uri):
        return Path(local_path(info.uri))
    cache = Path(os.environ.get("UNIPIC_CACHE") or Path.home() / ".cache" / "unipic") / "checkpoints"
    cache.mkdir(parents=True, exist_ok=True)
    final = cache / info.digest  # computed by us: no text of the checkpoint's own becomes a path
    with (cache / f"{info.digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # replicas of one machine look at the copy side by side
        if _is_whole(final, info):
            return final
        fcntl.flock(lock, fcntl.LOCK_EX)  # and one of them fetches
        if not _is_whole(final, info):
            _fetch(info, cache, final, storage)
    return final


def _is_whole(folder: Path, info: CheckpointInfo) -> bool:
    """Whether the folder holds exactly this checkpoint, by the digests of its files."""
    from unipic.model.checkpoint import DIGESTS_FILE, CheckpointFault, verify

    if not (folder / DIGESTS_FILE).is_file():
        return False
    try:
        return verify(folder).files == info.files
    except (CheckpointFault, OSError) as fault:
        log.warning("The copy of %s in the cache is damaged and is fetched again: %s", info.uri, fault)
        return False


def _fetch(info: CheckpointInfo, cache: Path, final: Path, storage: Storage) -> None:
    from unipic.model.checkpoint import DIGESTS_FILE, Digests, to_json

    shutil.rmtree(final, ignore_errors=True)
    free_bytes = shutil.disk_usage(cache).free
    if free_bytes < info.bytes + SPARE_BYTES:
        raise StorageFull(
            f"{info.uri} has {info.bytes:,} bytes, and {cache} has room for {max(0, free_bytes - SPARE_BYTES):,}.",
            remedy="Free some space, or set UNIPIC_CACHE to a folder on a larger disk.",
        )
    partial = Path(tempfile.mkdtemp(dir=cache, prefix=f"{info.digest[:12]}-"))
    try:
        for name in info.files:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(info, name, partial / name, storage, None)
        (partial / DIGESTS_FILE).write_text(to_json(Digests(info.files, info.digest, info.sizes)), encoding="utf-8")
        partial.rename(final)
    except OSError as error:
        raise from_system_write(error, str(final), None) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(
    info: CheckpointInfo, name: str, to: Path | None, storage: Storage, on_bytes: Callable[[int], None] | None
) -> None:
    """Stream one file, to disk where `to` is given, and compare its SHA-256."""
    uri, seen = join(info.uri, name), hashlib.sha256()
    with storage.open(uri) as source, (to or Path(os.devnull)).open("wb") as sink:
        left = info.sizes[name]
        while chunk := source.read(min(CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            seen.update(chunk)
            if to is not None:
                sink.write(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    if left or seen.hexdigest() != info.files[name]:
        raise CheckpointError(
            f"{uri} does not match its digest in digests.json",
            remedy=REMEDY,
        )
