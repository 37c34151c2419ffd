"""Storage whose every request to an output waits for its turn, over S3 in memory or over real files.

The S3 in memory answers as S3 does and no better: listings come in pages between which others write, a move is a copy
and a delete, answers get lost, and a client's own second attempt meets what its first one did.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unipic.pipeline.errors import ObjectMissing, StorageUnavailable
from unipic.pipeline.storage.errors import ConditionFailed
from unipic.pipeline.storage.paths import is_remote, local_path
from unipic.pipeline.storage.remote import if_version
from unipic.pipeline.storage.storage import FileInfo, Storage

PAGE_KEYS = 3
REFUSED, LOST, TWICE = "refused", "answer lost", "sent twice"
ORDERS = (REFUSED, LOST, TWICE)
T = TypeVar("T")
Facts = tuple[str, int, str]
"""URI, size in bytes, version."""
Gate = Callable[[str], str]
"""Called with a request before it is sent; returns GO or what is to become of it, or does not return."""


@dataclass
class Bucket:
    """The objects of an S3 store in memory, by URI."""

    objects: dict[str, bytes] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    changes: int = 0

    def put(self, uri: str, data: bytes) -> None:
        if uri not in self.objects:
            insort(self.keys, uri)
        self.objects[uri] = data
        self.changes += 1

    def delete(self, uri: str) -> None:
        if self.objects.pop(uri, None) is not None:
            self.keys.remove(uri)
            self.changes += 1

    def get(self, uri: str) -> bytes:
        if uri not in self.objects:
            raise ObjectMissing(f"There is nothing at {uri}.")
        return self.objects[uri]


class BucketRemote:
    """In place of `Remote`: requests to a `Bucket`, each at its turn."""

    def __init__(self, bucket: Bucket, gate: Gate, *, conditional: bool) -> None:
        self.bucket, self.gate, self.conditional = bucket, gate, conditional

    def get(self, uri: str, *, max_bytes: int | None) -> tuple[bytes, str]:
        return self._do(f"GET {uri}", lambda: (self.bucket.get(uri), _version(self.bucket.get(uri))))

    def get_range(self, uri: str, start: int, *, size_bytes: int, version: str) -> bytes:
        return self._do(f"GET {uri}", lambda: self.bucket.get(uri)[start : start + size_bytes])

    def head(self, uri: str) -> tuple[int, str]:
        return self._do(f"HEAD {uri}", lambda: (len(self.bucket.get(uri)), _version(self.bucket.get(uri))))

    def put(self, uri: str, data: bytes, condition: dict[str, str] | None = None) -> str:
        def put() -> str:
            if condition and self.conditional:
                there = self.bucket.objects.get(uri)
                met = (
                    there is None if "IfNoneMatch" in condition else there and condition == if_version(_version(there))
                )
                if not met:
                    raise ConditionFailed(f"The condition of the put of {uri} does not hold.")
            self.bucket.put(uri, data)
            return _version(data)

        return self._do(f"PUT {uri}", put)

    def copy(self, source: str, target: str) -> None:
        self._do(f"COPY {source} to {target}", lambda: self.bucket.put(target, self.bucket.get(source)))

    def delete(self, uri: str) -> None:
        self._do(f"DELETE {uri}", lambda: self.bucket.delete(uri))

    def discard(self, uri: str) -> None:
        """What may be deleted later is not: a process may end before it has enough of that for one request."""

    def delete_all(self, uris: Sequence[str]) -> None:
        """One request, during which others see some of the objects gone and some there."""
        for uri in uris:
            self.delete(uri)

    def list(self, folder_uri: str, *, recursive: bool, start_after: str, prefix: str) -> Iterator[Facts]:
        found = self.pages(folder_uri, recursive=recursive, start_after=start_after, prefix=prefix)
        return iter(list(found))

    def pages(self, folder_uri: str, *, recursive: bool, start_after: str = "", prefix: str = "") -> Iterator[Facts]:
        folder = f"{folder_uri.rstrip('/')}/"
        after = max(start_after, folder)

        def page() -> list[str]:
            keys = self.bucket.keys
            found: list[str] = []
            for key in keys[bisect_right(keys, after) :]:
                if not key.startswith(folder) or len(found) == PAGE_KEYS:
                    break
                if key.startswith(folder + prefix) and (recursive or "/" not in key.removeprefix(folder)):
                    found.append(key)
            return found

        while found := self._do(f"LIST {folder}{prefix}", page):
            for uri in found:
                data = self.bucket.objects.get(uri, b"")
                yield uri, len(data), _version(data)
            if len(found) < PAGE_KEYS:
                return
            after = found[-1]

    def honours_conditions(self, probe: str) -> bool:
        return self.conditional

    def _do(self, what: str, request: Callable[[], T]) -> T:
        order = self.gate(what)
        if order == REFUSED:
            raise StorageUnavailable(f"{what} was refused, as ordered")
        done = request()
        if order == LOST:
            raise StorageUnavailable(f"the answer to {what} was lost, as ordered")
        return request() if order == TWICE else done


class SteppedStorage(Storage):
    """What one process sees of the output's store. Requests that are about something else go on at once.

    Args:
        output_uri: below which requests wait for their turn.
        bucket: of an output on S3; None for an output on a local disk.
        conditional: False for a store that ignores put-if-absent. A process is not held up then between the check and
            the put that stand for it: that moment is what such a store leaves open.
    """

    def __init__(self, output_uri: str, gate: Gate, *, bucket: Bucket | None, conditional: bool) -> None:
        super().__init__()
        self.output_uri, self.gate, self.honours_conditions = output_uri, gate, conditional
        self._held = False
        if bucket is not None:
            remote: Any = BucketRemote(bucket, self._pass, conditional=conditional)
            self._s3 = remote

    def _pass(self, what: str) -> str:
        return "" if self._held else self.gate(what)

    def conditional(self, folder_uri: str) -> bool:
        if is_remote(folder_uri) or self.honours_conditions:
            return super().conditional(folder_uri)
        return False

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        if self.honours_conditions:
            return super().put_if_absent(uri, data)
        order = self.gate(f"PUT {uri}")
        if order == REFUSED:
            raise StorageUnavailable(f"PUT {uri} was refused, as ordered")
        self._held = True
        try:
            done = super().put_if_absent(uri, data)
        finally:
            self._held = False
        if order == LOST:
            raise StorageUnavailable(f"the answer to PUT {uri} was lost, as ordered")
        return done

    def list(
        self, folder_uri: str, *, suffix: str = "", recursive: bool = False, start_after: str = "", prefix: str = ""
    ) -> Iterator[FileInfo]:
        what = f"LIST {folder_uri}/{prefix}"
        if not is_remote(folder_uri) and self._is_ours(folder_uri) and self._pass(what) == REFUSED:
            raise StorageUnavailable(f"{what} was refused, as ordered")
        return super().list(folder_uri, suffix=suffix, recursive=recursive, start_after=start_after, prefix=prefix)

    def _create(self, uri: str, data: bytes) -> bool:
        if not is_remote(uri) and not self.honours_conditions:
            self.write(uri, data)
            return True
        return super()._create(uri, data)

    def _local(self, uri: str, call: Callable[[str], T]) -> T:
        if not self._is_ours(uri):
            return super()._local(uri, call)
        what = f"{getattr(call, '__qualname__', 'call')} {uri}"
        order = self._pass(what)
        if order == REFUSED:
            raise StorageUnavailable(f"{what} was refused, as ordered")
        done = call(local_path(uri))
        if order == LOST:
            raise StorageUnavailable(f"the answer to {what} was lost, as ordered")
        return done

    def _is_ours(self, uri: str) -> bool:
        return local_path(uri).startswith(self.output_uri)


def _version(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()
