"""A micro-batch that takes too long costs its replica its life: nobody outside can end a hung kernel."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

from pipeline.context import RunContext
from pipeline.errors import UniPicError
from pipeline.records import Unit
from pipeline.storage import join

REPORTS = "_unipic/reports"
BACKSTOP_S = 30.0  # later than our own report: ends a process whose hang keeps Python itself from running
EXIT_STATUS = 70


@contextlib.contextmanager
def time_limit(unit: Unit, rows: tuple[int, int], context: RunContext) -> Iterator[None]:
    """End this process when the body takes longer than `limits.batch_timeout_s`, its stacks written to the output."""
    limit_s = context.job.limits.batch_timeout_s
    timer = threading.Timer(limit_s, _leave, args=(unit, rows, context))
    timer.daemon = True
    timer.start()
    with _backstop(limit_s + BACKSTOP_S):
        try:
            yield
        finally:
            timer.cancel()


@contextlib.contextmanager
def _backstop(after_s: float) -> Iterator[None]:
    faulthandler.dump_traceback_later(after_s, exit=True, file=2)  # the descriptor itself: sys.stderr may be replaced
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _leave(unit: Unit, rows: tuple[int, int], context: RunContext) -> None:
    name = f"{REPORTS}/{unit.id}-rows-{rows[0]}-{rows[1]}.txt"
    limit_s = context.job.limits.batch_timeout_s
    head = f"no answer for rows {rows[0]} to {rows[1] - 1} of unit {unit.id} within {limit_s} s\n"
    try:
        context.storage.write(join(context.job.output.uri, name), head.encode() + _stacks())
    except UniPicError as error:  # leaving matters more than the report
        sys.stderr.write(f"{head}{error}\n")
    os._exit(EXIT_STATUS)


def _stacks() -> bytes:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
