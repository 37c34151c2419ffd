"""S3 as `Storage` uses it: connected when needed, again after a fork, each operation attempted in its time."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from unipic.pipeline.errors import StorageError
from unipic.pipeline.storage.errors import ConditionFailed, RequestUnsupported
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.ordering import in_order
from unipic.pipeline.storage.paths import store_of
from unipic.pipeline.storage.waiting import Waiting, attempts

if TYPE_CHECKING:
    from unipic.pipeline.storage.s3 import S3

PATIENCE_S = 45.0
"""How long an operation may take against an endpoint that has never answered, or for a person who waits for it."""
DELETED_AT_ONCE = 1000  # as many as S3 takes in one request
DISCARDED_AT_ONCE = 64  # a process that dies leaves at most so many for its run's recovery
DELETERS = 8
IF_ABSENT = {"IfNoneMatch": "*"}
log = logging.getLogger("unipic.storage")
T = TypeVar("T")
Facts = tuple[str, int, str]
"""URI, size in bytes, version."""


def if_version(version: str) -> dict[str, str]:
    """The condition of a put that replaces this very version."""
    return {"IfMatch": f'"{version}"'}


class Remote:
    """Requests to one S3 endpoint. Safe in threads and after a fork.

    Args:
        patience_s: the longest time for one operation, attempts and waits together. Without it an operation may make
            all its attempts, once the endpoint has answered at all.
    """

    def __init__(self, options: StorageOptions, patience_s: float | None) -> None:
        self._options, self._patience_s = options, patience_s
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._s3: S3 | None = None
        self._pid = -1
        self._deletes_many = True
        self._discarded: dict[str, list[str]] = {}  # bucket → what is to be deleted
        self._inherited: list[S3] = []  # a parent's connections: closing them here would disturb it

    def get(self, uri: str, *, max_bytes: int | None) -> tuple[bytes, str]:
        """The object's bytes and its version."""
        return self._do("GET", uri, lambda s3, waiting: s3.get(uri, max_bytes, waiting))

    def get_range(self, uri: str, start: int, *, size_bytes: int, version: str) -> bytes:
        def get(s3: S3, waiting: Waiting) -> bytes:
            return s3.get_range(uri, start, size_bytes=size_bytes, version=version, waiting=waiting)

        return self._do("GET", uri, get)

    def put(self, uri: str, data: bytes, condition: dict[str, str] | None = None) -> str:
        """The new object's version. Raises ConditionFailed, RequestUnsupported."""

        def put(s3: S3, waiting: Waiting) -> str:
            return s3.put(uri, data, waiting, condition=condition)

        return self._do("PUT", uri, put, upload_bytes=len(data))

    def head(self, uri: str) -> tuple[int, str]:
        """Size and version."""
        return self._do("HEAD", uri, lambda s3, waiting: s3.head(uri, waiting))

    def copy(self, source: str, target: str) -> None:
        """Inside the store. Raises ObjectMissing where there is no `source`."""
        self._do("COPY", source, lambda s3, waiting: s3.copy(source, target, waiting))

    def delete(self, uri: str) -> None:
        self._do("DELETE", uri, lambda s3, waiting: s3.delete(uri, waiting))

    def delete_all(self, uris: Sequence[str]) -> None:
        """Delete up to DELETED_AT_ONCE objects of one bucket; one by one where the store takes no list of them."""
        left = uris
        if self._deletes_many and len(uris) > 1:
            try:
                left = self._do("DELETE", uris[0], lambda s3, waiting: s3.delete_all(uris, waiting))
            except StorageError as error:
                if error.retryable:
                    raise
                self._deletes_many = False
        if left:
            with ThreadPoolExecutor(DELETERS) as pool:
                list(pool.map(self.delete, left))

    def discard(self, uri: str) -> None:
        """Delete an object some time, with others: one that does no harm where it is, and that a later run deletes."""
        with self._lock:
            waiting = self._discarded.setdefault(store_of(uri), [])
            waiting.append(uri)
            if len(waiting) < DISCARDED_AT_ONCE:
                return
            del self._discarded[store_of(uri)]
        try:
            self.delete_all(waiting)
        except StorageError as error:
            log.info("%d files that are not needed any more stay for now: %s", len(waiting), error.message)

    def list(self, folder_uri: str, *, recursive: bool, start_after: str, prefix: str) -> Iterator[Facts]:
        """All objects below a folder whose names begin with `prefix`, sorted by URI."""
        in_store_order = self.pages(folder_uri, recursive=recursive, start_after=start_after, prefix=prefix)
        sorted_there = self._do("LIST", folder_uri, lambda s3, _: s3.lists_in_order(folder_uri))
        return in_store_order if sorted_there else in_order(in_store_order)

    def pages(self, folder_uri: str, *, recursive: bool, start_after: str = "", prefix: str = "") -> Iterator[Facts]:
        """All objects below a folder, in the store's own order."""
        token = ""
        while True:

            def page(s3: S3, waiting: Waiting, token: str = token) -> tuple[list[Facts], str]:
                how = {"token": token, "start_after": start_after, "prefix": prefix}
                return s3.page(folder_uri, waiting, recursive=recursive, **how)

            found, token = self._do("LIST", folder_uri, page)
            yield from found
            if not token:
                return

    def honours_conditions(self, probe: str) -> bool:
        """Whether the store refuses puts whose condition does not hold, tried on an object it makes and deletes."""
        self.put(probe, b"1")
        try:
            return all(self._refuses(probe, condition) for condition in (IF_ABSENT, if_version("0" * 32)))
        finally:
            self.delete(probe)

    def _refuses(self, uri: str, condition: dict[str, str]) -> bool:
        try:
            self.put(uri, b"2", condition)
        except ConditionFailed:
            return True
        except RequestUnsupported:
            return False
        return False

    def _do(self, verb: str, uri: str, call: Callable[[S3, Waiting], T], *, upload_bytes: int = 0) -> T:
        patience_s = self._patience_s or (math.inf if self._s3 is not None and self._s3.answered else PATIENCE_S)
        what = f"{self._options.endpoint_url or 'S3'}: {verb} {uri}"
        waiting = Waiting(what, patience_s, upload_bytes=upload_bytes)
        return attempts(lambda: call(self._connected(waiting), waiting), waiting, self._options)

    def _connected(self, waiting: Waiting) -> S3:
        with self._lock:
            if self._s3 is None or self._pid != os.getpid():
                from unipic.pipeline.storage.s3 import S3

                if self._s3 is not None:
                    self._inherited.append(self._s3)
                self._s3, self._pid = S3(self._options, waiting, self.requests), os.getpid()
            return self._s3
