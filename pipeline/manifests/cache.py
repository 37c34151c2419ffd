"""What a process keeps of the manifests it reads: bounded, and one for each `Storage`, with which it ends.

No lock is held while anything is read: locks guard the bookkeeping alone.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar, cast

import pyarrow as pa

from unipic.pipeline.storage.storage import Storage

TEXT_FILES, TEXT_BYTES = 4, 2**30
GROUPS, GROUP_BYTES = 64, 128 * 2**20
INDEXES, INDEX_BYTES = 16, 64 * 2**20
OPEN_READERS = 8


class Closes(Protocol):
    def close(self) -> None: ...


R = TypeVar("R", bound=Closes)


class Tables:
    """Tables by key, each made once: whoever asks for one that is being made waits for it, all others go on.

    Beyond its bounds the table that was used longest ago is dropped; the newest stays, whatever its size.
    """

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._lock = threading.Lock()
        self._made: OrderedDict[Hashable, Future[pa.Table]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], pa.Table]) -> pa.Table:
        """The table of `key`. What `make` raises is raised here, and nothing is kept."""
        with self._lock:
            table = self._made.get(key)
            first = table is None
            if table is None:
                table = self._made[key] = Future()
            self._made.move_to_end(key)
        if first:
            self._make(key, table, make)
        return table.result()

    def _make(self, key: Hashable, table: Future[pa.Table], make: Callable[[], pa.Table]) -> None:
        try:
            table.set_result(make())
        except BaseException as error:
            with self._lock:
                self._made.pop(key, None)
            table.set_exception(error)
            return
        with self._lock:
            while len(self._made) > 1 and (len(self._made) > self._most or self._bytes() > self._most_bytes):
                self._made.popitem(last=False)

    def _bytes(self) -> int:
        return sum(table.result().nbytes for table in self._made.values() if table.done() and not table.exception())


class Readers(Generic[R]):
    """Open readers of files. One thread at a time has a reader; another that needs the same file opens its own."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[tuple[Hashable, R]] = []  # the one used last is last

    @contextmanager
    def borrow(self, key: Hashable, make: Callable[[], R]) -> Iterator[R]:
        """A reader of `key`, kept for the next borrower unless the block raises."""
        reader = self._take(key) or make()
        try:
            yield reader
        except BaseException:
            reader.close()
            raise
        with self._lock:
            self._idle.append((key, reader))
            closing = [self._idle.pop(0)[1] for _ in range(len(self._idle) - self._most)]
        for old in closing:
            old.close()

    def _take(self, key: Hashable) -> R | None:
        with self._lock:
            for at in reversed(range(len(self._idle))):
                if self._idle[at][0] == key:
                    return self._idle.pop(at)[1]
        return None


class ManifestCache(Generic[R]):
    """What was read through one `Storage`.

    Attributes:
        texts: whole files in JSON, JSONL and CSV.
        groups: small row groups of Parquet files.
        indexes: of WebDataset shards.
        readers: open Parquet files.
    """

    def __init__(self) -> None:
        self.texts = Tables(most=TEXT_FILES, most_bytes=TEXT_BYTES)
        self.groups = Tables(most=GROUPS, most_bytes=GROUP_BYTES)
        self.indexes = Tables(most=INDEXES, most_bytes=INDEX_BYTES)
        self.readers = Readers[R](most=OPEN_READERS)


def cache_of(storage: Storage) -> ManifestCache[R]:
    """The cache of what is read through `storage`. A forked process starts its own: it must not share open files."""
    name = f"manifests of process {os.getpid()}"
    return cast(ManifestCache[R], vars(storage).setdefault(name, ManifestCache[R]()))
