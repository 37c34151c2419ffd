"""Named places where a test may have this process die. Without `UNIPIC_CRASH_POINTS` they do nothing.

The variable names a folder; a file there called like a point makes the next process that reaches it take the file away
and kill itself, once.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

VARIABLE = "UNIPIC_CRASH_POINTS"

POINTS = (
    "prepare.start",
    "prepare.end",
    "replica.before_batch",
    "replica.after_batch",
    "commit.start",
    "commit.before_image",
    "commit.after_image",
    "commit.before_rejected",
    "commit.after_rejected",
    "commit.before_data",
    "commit.after_data",
    "commit.before_receipt",
    "commit.after_receipt",
    "commit.after_publish",
)


def crash_point(name: str) -> None:
    """Die here if a test asked for it."""
    folder = os.environ.get(VARIABLE)
    if folder and _taken(Path(folder) / name):
        die()


def die() -> None:
    """End this process the way the kernel's out-of-memory killer does. In-process tests put an exception here."""
    os.kill(os.getpid(), signal.SIGKILL)


def _taken(marker: Path) -> bool:
    """Take `marker` away; of several processes that reach the point at once, one succeeds."""
    try:
        marker.unlink()
    except FileNotFoundError:
        return False
    return True
