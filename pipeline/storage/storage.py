"""The only door to bytes: local files and S3, put-if-absent, retries with backoff.

A URI is a local path (absolute or relative) or `s3://bucket/key`. Every failure is one of `pipeline/errors.py`; only
`StorageUnavailable` is worth another try, and by the time it is raised those tries were made.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from unipic.pipeline.errors import ObjectMissing, OutputError, StorageError, StorageUnavailable
from unipic.pipeline.storage import local
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.paths import glob_regex, is_s3, join, local_path, split_pattern

if TYPE_CHECKING:
    from unipic.pipeline.storage.s3 import S3

BACKOFF_FIRST_S = 0.2
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
    """Reads and writes whole objects. Cheap to make, picklable, safe in threads and after a fork."""

    def __init__(self, options: StorageOptions = _DEFAULTS) -> None:
        self.options = options
        self._lock = threading.Lock()
        self._s3: S3 | None = None
        self._pid = -1

    def __getstate__(self) -> StorageOptions:
        return self.options

    def __setstate__(self, options: StorageOptions) -> None:
        Storage.__init__(self, options)

    def read(self, uri: str, *, max_bytes: int | None = None) -> bytes:
        """The whole object. Raises StorageError, naming both sizes, if it has more than `max_bytes`."""
        if is_s3(uri):
            return self._try(lambda: self._connect().get(uri, max_bytes))
        return self._try(lambda: local.read(local_path(uri), max_bytes))

    def open(self, uri: str, *, info: FileInfo | None = None) -> BinaryIO:
        """The object as a seekable binary file, for pyarrow; only the ranges that are read are fetched.

        Args:
            info: from `list` or `info`, where the caller has it: saves a request.
        """
        if not is_s3(uri):
            return self._try(lambda: local.open_file(local_path(uri)))
        from unipic.pipeline.storage.s3 import RemoteFile

        info = self.info(uri)

        def read_range(start: int, size_bytes: int) -> bytes:
            return self._try(lambda: self._connect().get_range(uri, start, size_bytes=size_bytes, version=info.version))

        return cast(BinaryIO, RemoteFile(read_range, info.size_bytes))

    def write(self, uri: str, data: bytes) -> None:
        """Put all of `data` there, replacing what is there; readers see the old or the new, never a part."""
        if is_s3(uri):
            self._try(lambda: self._connect().put(uri, data))
        else:
            self._try(lambda: local.write(local_path(uri), data))

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Put `data` there unless other bytes are: True if what is there now equals `data`.

        A store that ignores `If-None-Match` (see `conditional_puts`) gets the check before the put, which leaves a
        moment for a race; a refused put is believed only after reading back, as its own answer may have been lost.
        """
        there = self._read_if_there(uri)
        if there is not None:
            return there == data
        if self._create(uri, data):
            return True
        there = self._read_if_there(uri)
        if there is None:
            raise StorageUnavailable(f"{uri} was there and is gone: another process deletes in this folder.")
        return there == data

    def conditional_puts(self, folder_uri: str) -> bool:
        """Whether this store honours put-if-absent, tried with an object of its own; local files always do."""
        if not is_s3(folder_uri):
            return True
        from unipic.pipeline.storage.errors import AlreadyThere, NotImplementedThere

        probe = join(folder_uri, f"{PROBE}{secrets.token_hex(8)}")
        self.write(probe, b"1")
        try:
            self._try(lambda: self._connect().put(probe, b"2", only_if_absent=True))
        except AlreadyThere:
            return True
        except NotImplementedThere:
            return False
        finally:
            self.delete(probe)
        return False

    def info(self, uri: str) -> FileInfo:
        """Raises ObjectMissing where there is no object (a folder is none)."""
        if is_s3(uri):
            size_bytes, version = self._try(lambda: self._connect().head(uri))
        else:
            size_bytes, version = self._try(lambda: local.stat(local_path(uri)))
        return FileInfo(uri, size_bytes, version)

    def exists(self, uri: str) -> bool:
        """Whether there is an object (not a folder) at `uri`."""
        try:
            self.info(uri)
        except ObjectMissing:
            return False
        return True

    def list(self, folder_uri: str, *, suffix: str = "", recursive: bool = False) -> Iterator[FileInfo]:
        """Objects in a folder whose names end in `suffix`, sorted by URI; none if there is no such folder."""
        if not is_s3(folder_uri):
            walked = local.walk(local_path(folder_uri) or ".", recursive=recursive)
            found: Iterator[FileInfo] = (FileInfo(*facts) for facts in walked)
        elif self.options.endpoint_url is None:
            found = self._pages(folder_uri, recursive)
        else:  # only AWS is known to list in order
            found = iter(sorted(self._pages(folder_uri, recursive), key=lambda info: info.uri))
        return (info for info in found if info.uri.endswith(suffix))

    def glob(self, pattern: str) -> FileInfos:
        """Objects whose whole URI matches `*`, `?`, `[…]` (within one folder) and `**` (across folders), sorted."""
        pattern = pattern if is_s3(pattern) else os.path.abspath(local_path(pattern))
        folder, rest = self.parted(pattern)
        matches = re.compile(re.escape(f"{folder.rstrip('/')}/") + glob_regex(rest))
        recursive = "/" in rest or "**" in rest
        return [info for info in self.list(folder, recursive=recursive) if matches.fullmatch(info.uri)]

    def parted(self, pattern: str) -> tuple[str, str]:
        """`split_pattern` of a whole URI; a folder there by its very name, such as `runs [1]`, is no pattern."""
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
        if is_s3(uri):
            self._try(lambda: self._connect().delete(uri))
        else:
            self._try(lambda: local.delete(local_path(uri)))

    def check_writable(self, folder_uri: str) -> None:
        """Write, read back and delete a small object; folders made for it go too. Raises OutputError with a remedy."""
        probe = join(folder_uri, f"{PROBE}{secrets.token_hex(8)}")
        remedy = "The output needs leave to write, read and delete, and the store must be up."
        made: list[str] = []
        try:
            if not is_s3(folder_uri):
                made = self._try(lambda: local.make_folders(local_path(folder_uri)))
            self.write(probe, b"probe")
            back = self.read(probe)
            self.delete(probe)
        except StorageError as error:
            said = error.message
            raise OutputError(f"{folder_uri} cannot be written: {said}", remedy=error.remedy or remedy) from error
        finally:
            local.remove_folders(made)
        if back != b"probe":
            raise OutputError(f"{folder_uri} gives back other bytes than were written.", remedy=remedy)

    def _is_folder(self, uri: str) -> bool:
        if not is_s3(uri):
            return os.path.isdir(uri)
        return next(self._pages(uri, True), None) is not None

    def _create(self, uri: str, data: bytes) -> bool:
        """False if something is there; on a store without conditions, a plain put."""
        if not is_s3(uri):
            return self._try(lambda: local.create(local_path(uri), data))
        from unipic.pipeline.storage.errors import AlreadyThere, NotImplementedThere

        try:
            self._try(lambda: self._connect().put(uri, data, only_if_absent=True))
        except AlreadyThere:
            return False
        except NotImplementedThere:
            self.write(uri, data)
        return True

    def _read_if_there(self, uri: str) -> bytes | None:
        try:
            return self.read(uri)
        except ObjectMissing:
            return None

    def _pages(self, folder_uri: str, recursive: bool) -> Iterator[FileInfo]:
        token = ""
        while True:
            found, token = self._try(partial(self._connect().page, folder_uri, recursive=recursive, token=token))
            yield from (FileInfo(*facts) for facts in found)
            if not token:
                return

    def _connect(self) -> S3:
        with self._lock:
            if self._s3 is None or self._pid != os.getpid():  # a forked child cannot use its parent's connection
                from unipic.pipeline.storage.s3 import S3

                self._s3, self._pid = S3(self.options), os.getpid()
            return self._s3

    def _try(self, call: Callable[[], T]) -> T:
        """`call` until it works, with growing waits of random length between tries that may pass."""
        for attempt in range(1, self.options.max_attempts + 1):
            try:
                return call()
            except StorageUnavailable as error:
                if attempt == self.options.max_attempts:
                    raise StorageUnavailable(
                        f"{error.message} (tried {attempt} times)", remedy="The same command resumes once it is back."
                    ) from error
            wait_s = min(self.options.backoff_max_s, BACKOFF_FIRST_S * 2 ** (attempt - 1))
            time.sleep(wait_s * random.uniform(0.5, 1.0))
        raise AssertionError("max_attempts is at least 1")
