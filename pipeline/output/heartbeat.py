"""Two runs of one job at once are safe: they write the same. They should still know of each other."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from unipic.pipeline.errors import JobError, ObjectMissing, StorageError
from unipic.pipeline.output.layout import RUNNING
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.storage.paths import join

BEAT_S = 60.0
DEAD_AFTER_S = 3 * BEAT_S  # a run that missed three beats is taken for gone


@contextmanager
def presence(ledger: Ledger, *, warn: Callable[[str], None]) -> Iterator[list[str]]:
    """Say that this run is here for as long as the body takes.

    Args:
        warn: told that the sign could not be taken down: that makes no finished run a failed one.

    Yields:
        Who else is here: "<host>, process <pid>, since <seconds> s".
    """
    uri = join(ledger.output_uri, RUNNING, f"{uuid.uuid4().hex}.json")
    started = time.time()
    ended = threading.Event()

    def beat() -> None:
        me = {"host": socket.gethostname(), "pid": os.getpid(), "started": started, "seen": time.time()}
        ledger.storage.write(uri, json.dumps(me).encode())

    def keep_beating() -> None:
        while not ended.wait(BEAT_S):
            try:
                beat()
            except StorageError:  # the run's own writes will say so, louder
                continue

    others = at_work(ledger)
    beat()
    heart = threading.Thread(target=keep_beating, daemon=True)
    heart.start()
    try:
        yield others
    finally:
        ended.set()
        heart.join()
        try:
            ledger.storage.delete(uri)
        except StorageError as error:
            warn(f"{uri} still says that this run is at work; it counts for {DEAD_AFTER_S:.0f} s: {error.message}")


def at_work(ledger: Ledger, *, tidy: bool = True) -> list[str]:
    """Runs that are at work in this output. `tidy`: take down the signs of those that died."""
    found = []
    for one in ledger.storage.list(join(ledger.output_uri, RUNNING), suffix=".json"):
        try:
            other = _Sign.from_json(ledger.storage.read(one.uri))
        except (ObjectMissing, ValueError):  # it ended, or began to write, while we looked
            continue
        # A time in the future is of a clock that jumped: it must not be alive for ever.
        if abs(time.time() - other.seen) < DEAD_AFTER_S and not other.is_dead_here():
            since_s = max(0.0, time.time() - other.started)
            found.append(f"{other.host}, process {other.pid}, since {since_s:.0f} s")
        elif tidy:
            ledger.storage.delete(one.uri)
    return found


def refuse_beside_runs(ledger: Ledger, harm: str, *, action: str) -> None:
    """Raises JobError where a run is at work in this output.

    Args:
        harm: what it "may" do, such as "write these rows".
        action: what to do after it, such as "Prune".
    """
    if others := at_work(ledger):
        raise JobError(
            f"another run is active in {ledger.output_uri} ({'; '.join(others)}) and may {harm}",
            remedy=f"{action} after it has ended; `unipic status` shows when.",
        )


@dataclass(frozen=True)
class _Sign:
    """Of a run at work: who wrote it, and when (seconds since 1970)."""

    host: str
    pid: int
    started: float
    seen: float

    @classmethod
    def from_json(cls, data: bytes) -> _Sign:
        """Raises ValueError, saying what is wrong."""
        try:
            value = json.loads(data)
            return cls(str(value["host"]), int(value["pid"]), float(value["started"]), float(value["seen"]))
        except (TypeError, LookupError, OverflowError, RecursionError) as error:
            raise ValueError("it is no heartbeat") from error

    def is_dead_here(self) -> bool:
        """Whether it ran on this machine and its process is gone."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            return False
        return False
