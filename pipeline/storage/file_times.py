"""Modification times of local files, as people read and set them."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime


def local_time(version: str) -> str:
    """A file's version as people read it, to the nanosecond."""
    seconds, ns = divmod(int(version), 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{ns:09d} UTC"


def touch_command(path: str, version: str) -> str:
    """What gives a file the modification time back that it had in `version`."""
    seconds, ns = divmod(int(version), 10**9)
    return f"touch -d @{seconds}.{ns:09d} {shlex.quote(path)}"
