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
from typing import Any

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
            other = json.loads(ledger.storage.read(one.uri))
            age_s = time.time() - float(other["seen"])
            if age_s < DEAD_AFTER_S and not _dead_here(other):
                since_s = time.time() - float(other["started"])
                found.append(f"{other['host']}, process {other['pid']}, since {since_s:.0f} s")
            elif tidy:
                ledger.storage.delete(one.uri)
        except (ObjectMissing, ValueError, KeyError):  # it ended, or began to write, while we looked
            continue
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


def _dead_here(other: dict[str, Any]) -> bool:
    """Whether it ran on this machine and its process is gone."""
    if other["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(other["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
