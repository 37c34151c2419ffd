"""A micro-batch that takes too long ends its replica's process: nothing else ends a hung kernel."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import UniPicError
from unipic.pipeline.records import Unit
from unipic.pipeline.storage.paths import join

REPORTS = "_unipic/reports"
BACKSTOP_S = 30.0  # later than our own report: ends a process whose hang keeps Python itself from running
CHECK_EVERY_S = 0.5
EXIT_STATUS = 1  # of a replica's worker process, or of a command that runs a unit itself


class _Watch:
    """One thread a process that checks regularly whether something takes too long: cheaper than a timer each."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.watched: dict[object, tuple[float, Callable[[], None]]] = {}
        self.thread: threading.Thread | None = None

    @contextlib.contextmanager
    def __call__(self, limit_s: float, late: Callable[[], None]) -> Iterator[None]:
        """Call `late` when the body takes longer than `limit_s`."""
        key = object()
        with self.lock:
            self.watched[key] = (time.monotonic() + limit_s, late)
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self._check, name="watchdog", daemon=True)
                self.thread.start()
        try:
            yield
        finally:
            with self.lock:
                del self.watched[key]

    def _check(self) -> None:
        while True:
            time.sleep(CHECK_EVERY_S)
            with self.lock:
                late = [call for ends_at, call in self.watched.values() if time.monotonic() > ends_at]
            for call in late:
                call()


_watch = _Watch()


@contextlib.contextmanager
def time_limit(unit: Unit, rows: tuple[int, int], context: RunContext) -> Iterator[None]:
    """End this process when the body takes longer than `limits.batch_timeout_s`, its stacks written to the output."""
    limit_s = context.job.limits.batch_timeout_s
    with _watch(limit_s, partial(end_process, unit, rows, context)), _backstop(limit_s + BACKSTOP_S):
        yield


@contextlib.contextmanager
def _backstop(after_s: float) -> Iterator[None]:
    faulthandler.dump_traceback_later(after_s, exit=True, file=2)  # the descriptor itself: sys.stderr may be replaced
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def end_process(unit: Unit, rows: tuple[int, int], context: RunContext) -> None:
    name = f"{REPORTS}/{unit.id}-rows-{rows[0]}-{rows[1]}.txt"
    limit_s = context.job.limits.batch_timeout_s
    head = f"no answer for rows {rows[0]} to {rows[1] - 1} of unit {unit.id} within {limit_s:g} s"
    uri = join(context.job.output.uri, name)
    try:
        context.storage.write(uri, f"{head}\n".encode() + _stacks())
        where = f"{uri} shows what it was doing"
    except UniPicError as error:  # ending matters more than the report
        where = str(error)
    sys.stderr.write(f"error: {head}: this process ends. limits.batch_timeout_s allows no more; {where}\n")
    sys.stderr.flush()
    os._exit(EXIT_STATUS)


def _stacks() -> bytes:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
