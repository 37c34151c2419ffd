"""What goes wrong in a drill without Ray: deaths at crash points, and a store that fails in every way a store can.

Whether a passing or a request goes wrong is decided by a digest of (seed, life, what, where, how often before), never
by a shared generator: threads may come in any order, the drill stays the same.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

from unipic.pipeline import crashpoints
from unipic.pipeline.errors import StorageUnavailable
from unipic.pipeline.storage import local
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.paths import local_path
from unipic.pipeline.storage.storage import FileInfo, Storage

RANDOM_NAMES = re.compile(r"[0-9a-f]{16,32}(?=$|\.json$)")  # of probes and of who is running: not the seed's doing

Handover = Callable[[], None]


class Died(BaseException):
    """The process is gone."""

    def __str__(self) -> str:
        return "died"


class Fates:
    """What happens in one life.

    Args:
        tally: counts each fault by its kind; shared by all lives of a drill.
        root: the drill's folder, which is another each time and decides nothing.
        crash_rate, storage_rate: share of passings, and of requests, that go wrong.
    """

    def __init__(
        self, name: str, tally: Counter[str], *, crash_rate: float, storage_rate: float, root: str = ""
    ) -> None:
        self.name, self.tally, self.root = name, tally, root
        self.crash_rate, self.storage_rate = crash_rate, storage_rate
        self._before: Counter[str] = Counter()
        self._lock = threading.Lock()

    def draw(self, what: str) -> tuple[float, float]:
        """Two numbers from 0 to 1: does it go wrong, and how."""
        with self._lock:
            nth = self._before[what]
            self._before[what] += 1
        raw = hashlib.sha256(f"{self.name}|{what}|{nth}".encode()).digest()
        return int.from_bytes(raw[:8], "big") / 2**64, int.from_bytes(raw[8:16], "big") / 2**64

    def crash(self, point: str) -> bool:
        dies = self.draw(point)[0] < self.crash_rate
        if dies:
            self.tally[f"death at {point}"] += 1
        return dies

    def request(self, verb: str, uri: str, kinds: tuple[str, ...]) -> str:
        """Which of `kinds` befalls this request, or the empty word."""
        wrong, which = self.draw(f"{verb} {RANDOM_NAMES.sub('*', uri.removeprefix(self.root))}")
        if wrong >= self.storage_rate:
            return ""
        kind = kinds[int(which * len(kinds))]
        self.tally[f"storage: {kind}"] += 1
        return kind


_fates: ContextVar[Fates | None] = ContextVar("fates", default=None)


@contextmanager
def fated(fates: Fates) -> Iterator[None]:
    """Crash points that this thread passes ask `fates`."""
    token = _fates.set(fates)
    try:
        yield
    finally:
        _fates.reset(token)


@contextmanager
def deadly_crash_points() -> Iterator[None]:
    """Crash points raise `Died` where the fates of the passing thread say so."""

    def taken(marker: Path) -> bool:
        fates = _fates.get()
        return fates is not None and fates.crash(marker.name)

    def die() -> None:
        raise Died

    before = crashpoints._taken, crashpoints.die
    os.environ[crashpoints.VARIABLE] = "drill"
    crashpoints._taken, crashpoints.die = taken, die
    try:
        yield
    finally:
        crashpoints._taken, crashpoints.die = before
        del os.environ[crashpoints.VARIABLE]


READ_FAULTS = ("a read failed",)
OPEN_FAULTS = ("a read failed", "a stream broke off")
WRITE_FAULTS = (
    "refused before a write",
    "answer lost after a write",
    "death before a write",
    "death in the middle of a write",
    "death after a write",
)


class FaultyStorage(Storage):
    """Local files behind a store that fails. Each fault is one that outlived the client's own retries.

    Args:
        handover: called before each write and list: lets another run of the same drill take its turn.
        conditional: False for a store that ignores put-if-absent.
    """

    def __init__(self, fates: Fates, *, conditional: bool = True, handover: Handover = lambda: None) -> None:
        super().__init__(StorageOptions())
        self.fates, self.honours_conditions, self.handover = fates, conditional, handover

    def conditional(self, folder_uri: str) -> bool:
        return self.honours_conditions and super().conditional(folder_uri)

    def read(self, uri: str, *, max_bytes: int | None = None) -> bytes:
        self._read_fault("read", uri)
        return super().read(uri, max_bytes=max_bytes)

    def open(self, uri: str, *, info: FileInfo | None = None) -> BinaryIO:
        kind = self.fates.request("open", uri, OPEN_FAULTS)
        if kind == "a read failed":
            raise StorageUnavailable(f"{uri} could not be reached")
        file = super().open(uri, info=info)
        return _BreaksOff(file, uri) if kind else file  # type: ignore[return-value]

    def info(self, uri: str) -> FileInfo:
        self._read_fault("info", uri)
        return super().info(uri)

    def list(self, folder_uri: str, **how: Any) -> Iterator[FileInfo]:
        self.handover()
        self._read_fault("list", folder_uri)
        return super().list(folder_uri, **how)

    def write(self, uri: str, data: bytes) -> None:
        self._write("write", uri, data, lambda: super(FaultyStorage, self).write(uri, data))

    def delete(self, uri: str) -> None:
        self._write("delete", uri, b"", lambda: super(FaultyStorage, self).delete(uri))

    def _create(self, uri: str, data: bytes) -> bool:
        if not self.honours_conditions:
            self.write(uri, data)
            return True
        made: list[bool] = []
        self._write("create", uri, data, lambda: made.append(super(FaultyStorage, self)._create(uri, data)))
        # The client's own second try after a lost answer meets its own object, and is told that one is there.
        return made[0] and self.fates.request("told", uri, ("own write met on a second try",)) == ""

    def _read_fault(self, verb: str, uri: str) -> None:
        if self.fates.request(verb, uri, READ_FAULTS):
            raise StorageUnavailable(f"{uri} could not be reached")

    def _write(self, verb: str, uri: str, data: bytes, really: Callable[[], Any]) -> None:
        self.handover()
        kind = self.fates.request(verb, uri, WRITE_FAULTS)
        if kind == "refused before a write":
            raise StorageUnavailable(f"{uri} could not be reached")
        if kind == "death before a write":
            raise Died
        if kind == "death in the middle of a write":
            local._write_temp(local_path(uri), data[: len(data) // 2])
            raise Died
        really()
        if kind == "answer lost after a write":
            raise StorageUnavailable(f"{uri} could not be reached")
        if kind == "death after a write":
            raise Died


class _BreaksOff:
    """A file that opens well and whose first read fails; a second try would go well."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self.file, self.uri, self.broken = file, uri, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _BreaksOff:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read(self, size: int = -1) -> bytes:
        if self.broken:
            self.broken = False
            raise StorageUnavailable(f"{self.uri} broke off")
        return self.file.read(size)
