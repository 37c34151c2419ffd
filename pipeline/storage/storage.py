"""Access to stored bytes: local files and S3, conditional puts, attempts with backoff.

A URI is a local path (absolute or relative) or `s3://bucket/key`; stores of `READ_ONLY` are read from. Every failure is
one of `pipeline/errors.py`; only `StorageUnavailable` is worth another attempt, and those were made when it is raised.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import BinaryIO, TypeVar, cast

from unipic.pipeline.errors import ObjectMissing, OutputError, StorageError, StorageUnavailable
from unipic.pipeline.storage import local
from unipic.pipeline.storage.errors import ConditionFailed, RequestUnsupported
from unipic.pipeline.storage.fsspec_store import FsspecStore
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.paths import glob_regex, is_remote, join, local_path, split_pattern, store_of
from unipic.pipeline.storage.remote import DELETED_AT_ONCE, IF_ABSENT, Remote, if_version
from unipic.pipeline.storage.waiting import Waiting, attempts

PROBE = ".unipic-probe-"  # a process that dies between writing and deleting its probe leaves one behind
T = TypeVar("T")
_DEFAULTS = StorageOptions()


@dataclass(frozen=True)
class FileInfo:
    """One stored object: `version` is its ETag (S3) or its mtime in ns (local)."""

    uri: str
    size_bytes: int
    version: str


FileInfos = list[FileInfo]  # a name for it, as `Storage.list` hides the built-in inside the class


class Storage:
    """Reads and writes whole objects. Cheap to make, picklable, safe in threads and after a fork.

    Args:
        patience_s: the longest time for one operation, attempts and waits together. Without it an operation may make
            all its attempts, once the endpoint has answered at all.
    """

    def __init__(self, options: StorageOptions = _DEFAULTS, *, patience_s: float | None = None) -> None:
        self.options = options
        self._patience_s = patience_s
        self._conditional: dict[str, bool] = {}
        self._s3 = Remote(options, patience_s)
        self.requests = self._s3.requests  # of this process: GET, HEAD, PUT, COPY, LIST, DELETE → how many
        self._others = FsspecStore(options, patience_s)

    def __getstate__(self) -> tuple[StorageOptions, float | None, dict[str, bool]]:
        return self.options, self._patience_s, dict(self._conditional)

    def __setstate__(self, state: tuple[StorageOptions, float | None, dict[str, bool]]) -> None:
        Storage.__init__(self, state[0], patience_s=state[1])
        self._conditional = state[2]

    def read(self, uri: str, *, max_bytes: int | None = None) -> bytes:
        """The whole object. Raises StorageError, naming both sizes, if it has more than `max_bytes`."""
        if is_remote(uri):
            return self._remote(uri).get(uri, max_bytes=max_bytes)[0]
        return self._local(uri, lambda path: local.read(path, max_bytes))

    def read_versioned(self, uri: str, *, max_bytes: int | None = None) -> tuple[bytes, str]:
        """The whole object and its version, for `replace`: an ETag, or a digest of a local file's content."""
        if is_remote(uri):
            return self._remote(uri).get(uri, max_bytes=max_bytes)
        data = self.read(uri, max_bytes=max_bytes)
        return data, sha256(data).hexdigest()

    def open(self, uri: str, *, info: FileInfo | None = None) -> BinaryIO:
        """The object as a seekable binary file, for pyarrow; only the ranges that are read are fetched.

        Args:
            info: from `list` or `info`, where the caller has it: saves a request.
        """
        if not is_remote(uri):
            return self._local(uri, local.open_file)
        from unipic.pipeline.storage.remote_file import RemoteFile

        found = info or self.info(uri)

        def read_range(start: int, size_bytes: int) -> bytes:
            return self._remote(uri).get_range(uri, start, size_bytes=size_bytes, version=found.version)

        return cast(BinaryIO, RemoteFile(read_range, found.size_bytes))

    def write(self, uri: str, data: bytes) -> None:
        """Put all of `data` there, replacing what is there; readers see the old or the new, never a part."""
        if is_remote(uri):
            self._remote(uri).put(uri, data)
        else:
            self._local(uri, lambda path: local.write(path, data))

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Put `data` there unless other bytes are: True if what is there now equals `data`.

        A store that ignores `If-None-Match` (see `conditional`) gets the check before the put, which leaves a moment
        for a race. A refused put is believed only after reading back, as its own answer may have been lost.
        """
        if not self._conditional.get(store_of(uri), False):
            there = self._read_if_there(uri)
            if there is not None:
                return there[0] == data
        if self._create(uri, data):
            return True
        there = self._read_if_there(uri)
        if there is None:
            raise StorageUnavailable(f"{uri} was there and is gone: another process deletes in this folder.")
        return there[0] == data

    def replace(self, uri: str, data: bytes, version: str) -> str | None:
        """Put `data` there if the object is still at `version`, from `read_versioned`: compare and swap.

        Returns the new version, or None where another writer was first or the object is gone. Equal bytes count as
        one's own, so `data` should hold something that only this writer writes. A store that ignores `If-Match` gets
        the check before the put, which leaves a moment for a race.
        """
        if not is_remote(uri):

            def held_as(held: bytes) -> bool:
                return sha256(held).hexdigest() == version

            done = self._local(uri, lambda path: local.replace(path, data, held_as))
            return sha256(data).hexdigest() if done else None
        try:
            if not self._conditional.get(store_of(uri), False) and self.info(uri).version != version:
                return None
            return self._remote(uri).put(uri, data, if_version(version))
        except ObjectMissing:
            return None
        except RequestUnsupported:
            return self._remote(uri).put(uri, data)
        except ConditionFailed:  # perhaps by an earlier attempt of this put, whose answer was lost
            there = self._read_if_there(uri)
            return there[1] if there is not None and there[0] == data else None

    def conditional(self, folder_uri: str) -> bool:
        """Whether this store honours conditional puts: tried once per bucket or local folder, with a small object.

        S3 needs `If-None-Match` and `If-Match`, a local file system hard links.
        """
        store = store_of(folder_uri)
        if store not in self._conditional:
            probe = join(folder_uri, f"{PROBE}{secrets.token_hex(8)}")
            if is_remote(folder_uri):
                self._conditional[store] = self._remote(probe).honours_conditions(probe)
            else:
                self._conditional[store] = self._local(probe, local.links_work)
        return self._conditional[store]

    def info(self, uri: str) -> FileInfo:
        """Raises ObjectMissing where there is no object (a folder is none)."""
        if is_remote(uri):
            size_bytes, version = self._remote(uri).head(uri)
        else:
            size_bytes, version = self._local(uri, local.stat)
        return FileInfo(uri, size_bytes, version)

    def exists(self, uri: str) -> bool:
        """Whether there is an object (not a folder) at `uri`."""
        try:
            self.info(uri)
        except ObjectMissing:
            return False
        return True

    def list(
        self, folder_uri: str, *, suffix: str = "", recursive: bool = False, start_after: str = "", prefix: str = ""
    ) -> Iterator[FileInfo]:
        """Objects in a folder whose names end in `suffix`, sorted by URI; none if there is no such folder.

        However many there are, memory holds a bounded number of them.

        Args:
            start_after: a URI; only those behind it are listed.
            prefix: what names in the folder begin with; the store is asked for no others.
        """
        if is_remote(folder_uri):
            found = self._remote(folder_uri).list(
                folder_uri, recursive=recursive, start_after=start_after, prefix=prefix
            )
        else:
            folder = local_path(folder_uri) or "."
            found = local.walk(folder, recursive=recursive, start_after=start_after, prefix=prefix)
        return (FileInfo(*facts) for facts in found if facts[0].endswith(suffix) and facts[0] > start_after)

    def glob(self, pattern: str) -> FileInfos:
        """Objects whose whole URI matches `*`, `?`, `[…]` (within one folder) and `**` (across folders), sorted."""
        pattern = pattern if is_remote(pattern) else os.path.abspath(local_path(pattern))
        folder, rest = self.parted(pattern)
        matches = re.compile(re.escape(f"{folder.rstrip('/')}/") + glob_regex(rest))
        recursive = "/" in rest or "**" in rest
        return [info for info in self.list(folder, recursive=recursive) if matches.fullmatch(info.uri)]

    def parted(self, pattern: str) -> tuple[str, str]:
        """`split_pattern` of a whole URI; a folder of that very name, such as `runs [1]`, is no pattern."""
        folder, rest = split_pattern(pattern)
        while rest:
            name, _, below = rest.partition("/")
            literal = join(folder, name)
            if not self._is_folder(literal):
                break
            plain, rest = split_pattern(below)
            folder = join(literal, plain) if plain not in ("", ".") else literal
        return folder, rest

    def delete(self, uri: str) -> None:
        """Remove an object; nothing happens where there is none."""
        if is_remote(uri):
            self._remote(uri).delete(uri)
        else:
            self._local(uri, local.delete)

    def delete_all(self, uris: Iterable[str]) -> int:
        """Remove objects of one store, in few requests where it takes that; returns how many were named."""
        rest, count = iter(uris), 0
        while batch := [*islice(rest, DELETED_AT_ONCE)]:
            count += len(batch)
            if is_remote(batch[0]):
                self._s3.delete_all(batch)
            else:
                for uri in batch:
                    self.delete(uri)
        return count

    def move(self, source: str, target: str, *, lazily: bool = False) -> None:
        """Give an object another name in the same store, replacing what is there; its bytes stay in the store.

        On S3, `lazily` deletes the source later, with others, unless this process ends before.

        Raises:
            ObjectMissing: there is no `source`. Where another process moved it just now, `target` is there.
        """
        if is_remote(source):
            self._remote(source).copy(source, target)
            self._s3.discard(source) if lazily else self._remote(source).delete(source)
        else:
            self._local(source, lambda path: local.move(path, local_path(target)))

    def check_writable(self, folder_uri: str) -> None:
        """Write, read back and delete a small object; folders made for it go too. Raises OutputError with a remedy."""
        probe = join(folder_uri, f"{PROBE}{secrets.token_hex(8)}")
        remedy = "The output needs permission to write, read and delete, and the store must be up."
        made: list[str] = []
        try:
            if not is_remote(folder_uri):
                made = self._local(folder_uri, local.make_folders)
            self.write(probe, b"probe")
            back = self.read(probe)
            self.delete(probe)
        except StorageError as error:
            raise OutputError(
                f"{folder_uri} cannot be written: {error.message}", remedy=error.remedy or remedy
            ) from error
        finally:
            local.remove_folders(made)
        if back != b"probe":
            raise OutputError(f"{folder_uri} gives back other bytes than were written.", remedy=remedy)

    def _remote(self, uri: str) -> Remote | FsspecStore:
        return self._s3 if uri.startswith("s3://") else self._others

    def _is_folder(self, uri: str) -> bool:
        if not is_remote(uri):
            return os.path.isdir(uri)
        return next(self._remote(uri).pages(uri, recursive=True), None) is not None

    def _create(self, uri: str, data: bytes) -> bool:
        """False if something is there; on a store without conditions, a plain put."""
        if not is_remote(uri):
            return self._local(uri, lambda path: local.create(path, data))
        try:
            self._remote(uri).put(uri, data, IF_ABSENT)
        except ConditionFailed:
            return False
        except RequestUnsupported:
            self.write(uri, data)
        return True

    def _read_if_there(self, uri: str) -> tuple[bytes, str] | None:
        try:
            return self.read_versioned(uri)
        except ObjectMissing:
            return None

    def _local(self, uri: str, call: Callable[[str], T]) -> T:
        path = local_path(uri)
        return attempts(lambda: call(path), Waiting(path), self.options)
