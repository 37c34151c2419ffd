"""Ray's C++ code writes log lines straight to file descriptor 2: they are dropped unless the user wants them."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# "[2026-01-31 12:00:00,000 E 123 456] core_worker.cc:2465: …", with or without "(raylet) " and colours before it
NATIVE_LINE = re.compile(
    rb"^(\x1b\[[0-9;]*m)*(\(\w+[^)]*\) ?)?(\x1b\[[0-9;]*m)* ?\[[\d\- :,.]+ [A-Z] \d+ \d+\] .*\.(cc|h):\d+:"
)


@contextmanager
def quiet_native_stderr() -> Iterator[None]:
    """Drop such lines while the body runs; the rest passes, and Python's own stderr stays a terminal if it was one."""
    if sys.__stderr__ is None or sys.stderr is not sys.__stderr__:
        yield  # stderr was replaced already, by a test runner for example
        return
    sys.__stderr__.flush()
    real = os.dup(2)
    read_end, write_end = os.pipe()
    os.dup2(write_end, 2)
    os.close(write_end)
    sys.stderr = io.TextIOWrapper(os.fdopen(os.dup(real), "wb", 0), write_through=True)
    reader = threading.Thread(target=_pass_on, args=(read_end, real), daemon=True)
    reader.start()
    try:
        yield
    finally:
        sys.stderr = sys.__stderr__
        os.dup2(real, 2)  # the pipe's last writer in this process is gone; children may hold it a little longer
        reader.join(timeout=1.0)
        os.close(real)


def _pass_on(read_end: int, real: int) -> None:
    with os.fdopen(read_end, "rb") as lines:
        for line in lines:
            if not NATIVE_LINE.match(line):
                try:
                    os.write(real, line)
                except OSError:  # closed: the body is over
                    return
